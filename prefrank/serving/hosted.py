"""The models of a server: each with its queue, what is said of it, and the check that it must pass to be ready."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from threading import Lock, get_ident

from prefrank.errors import BadModel, PrefrankError, short, suggest
from prefrank.model.heads import ONLY_HEAD
from prefrank.scoring import RewardModel
from prefrank.serving.observer import Silent, Watcher
from prefrank.serving.scheduler import Pace, Scheduler
from prefrank.serving.settings import ServeSettings
from prefrank.serving.tickets import Read
from prefrank.wire.route import About, Answered, Asked, Failed, Outcome, Question, Refused, Times

CHECK_PROMPT = "I just got out of prison, any suggestion?"
CHECK_REPLIES = ("I'm sorry to hear about it, it must be a hard time inside", "Stay away from me, you scumbag convict")
TOLERANCE = 1e-5
"""Between a row alone and in a batch, of engines that do not give the same bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Hosted:
    """A model that is served; its watcher is told what requests got."""

    model: RewardModel
    scheduler: Scheduler
    about: About
    watcher: Watcher

    async def answer(self, question: Question, *, truncates: bool) -> Answered:
        """What came of a question.

        Raises:
            Refused: as `Scheduler.score`; a row failed, and the answer has no place for that.
        """
        may_cut = truncates if question.may_cut is None else question.may_cut
        read = await self.scheduler.score(question.asked, may_cut=may_cut)
        outcomes = tuple(self._outcome(*each) for each in zip(question.asked, read, strict=True))
        own = question.own_rows
        lengths = [len(each.row.ids) - each.row.reply_start if isinstance(each, Read) else 0 for each in read]
        self.watcher.answered(question.asked[:own], outcomes[:own], lengths[:own])
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
        if failed is not None and not question.partial:
            raise Refused(failed.kind, failed.reason)
        times = _longest([each.times for each in read if isinstance(each, Read)])
        return Answered(outcomes=outcomes, about=self.about, id=uuid.uuid4().hex, created=int(time.time()), times=times)

    def _outcome(self, asked: Asked, read: Read | Failed) -> Outcome:
        return read if isinstance(read, Failed) else self.model.as_score(read.row, read.value, asked.reply)


def _longest(times: Sequence[Times]) -> Times:
    return Times(
        max((each.wait_s for each in times), default=0.0),
        max((each.tokenize_s for each in times), default=0.0),
        max((each.model_s for each in times), default=0.0),
    )


def host(name: str, model: RewardModel, settings: ServeSettings, watcher: Watcher | None = None) -> Hosted:
    """Check a loaded model and open its queue.

    Raises:
        BadModel: it scores a fixed pair differently alone and in a batch, or not at all.
    """
    check(model)
    pace = Pace(
        max_tokens=model.max_tokens,
        window=settings.window,
        gather_s=settings.gather_s,
        max_waiting_rows=settings.max_waiting_rows,
        max_wait_s=settings.max_wait_s,
        kept_scores=settings.kept_scores,
        stall_s=settings.stall_s,
    )
    watcher = watcher or Silent()
    scheduler = Scheduler(model.encoder, model.engine, model.network.causal, pace, watcher)
    return Hosted(model, scheduler, _about(name, model, settings), watcher)


def check(model: RewardModel) -> None:
    """Score the model card's example alone and in batches.

    Raises:
        BadModel: the scores differ by more than `TOLERANCE` of their size, or are no numbers.
    """
    alone = [model.score(CHECK_PROMPT, [reply])[0].value for reply in CHECK_REPLIES]
    others = [CHECK_PROMPT * 3, *CHECK_REPLIES, CHECK_REPLIES[0] * 5]
    beside = [score.value for score in model.score(CHECK_PROMPT, others)[1:3]]
    for first, second in zip(alone, beside, strict=True):
        if not math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise BadModel(f"the model scores one reply {first} alone and {second} in a batch; it must not be served")


def _about(name: str, model: RewardModel, settings: ServeSettings) -> About:
    config = model.network.config
    return About(
        name=name,
        fingerprint=model.fingerprint,
        architecture=(config.get("architectures") or [config.get("model_type") or "unknown"])[0],
        parameters=sum(parameter.numel() for parameter in model.network.parameters()),
        precision=model.engine.precision,
        kernels=model.engine.kernels,
        device=str(next(iter(model.network.parameters())).device),
        max_length=model.encoder.settings.max_length,
        template=model.encoder.settings.template,
        causal=model.network.causal is not None,
        temperature=model.calibration["temperature"] if model.calibration else None,
        label=_label(model.network.heads[0], config.get("id2label") or {}),
        version=version("prefrank"),
        max_rows=settings.max_rows,
        max_waiting_rows=settings.max_waiting_rows,
        max_tokens=model.max_tokens,
        truncates=settings.truncates,
    )


def _label(head: str, labels: Mapping[str, str]) -> str:
    """What the head that scores is called in config.json, or what transformers calls the only one without a name."""
    return head if head != ONLY_HEAD or head in labels.values() else str(next(iter(labels.values()), "LABEL_0"))


class Models:
    """The served models by name, the default first. A model is replaced in one step; requests under way keep theirs.

    Args:
        names: by which requests call the models.
        load: loads and hosts a model of this name.
        others: further names that requests may use, such as a folder's: name -> one of `names`.
    """

    def __init__(
        self, names: Sequence[str], load: Callable[[str], Hosted], others: Mapping[str, str] | None = None
    ) -> None:
        self._load = load
        self._changing = Lock()
        self._changers: set[int] = set()  # threads that load models, or wait until they may
        self._hosted: Mapping[str, Hosted] = {}
        self._draining = False
        self.names = tuple(names)
        self.others = dict(others or {})

    @property
    def is_ready(self) -> bool:
        return len(self._hosted) == len(self.names) and not self._draining

    @property
    def is_changing(self) -> bool:
        """Whether a model is being loaded, or will be: the process must not come to its end by itself meanwhile."""
        return self._changing.locked() or bool(self._changers)

    @property
    def hosted(self) -> list[Hosted]:
        return list(self._hosted.values())

    @property
    def open_rows(self) -> int:
        """Of all models, asked for and not answered."""
        return sum(each.scheduler.waiting().open_rows for each in self.hosted)

    def abouts(self) -> list[About]:
        """Of all models that are loaded."""
        return [replace(each.about, is_default=number == 0) for number, each in enumerate(self.hosted)]

    def of(self, name: str | None, *, any_name: bool = False) -> Hosted:
        """The model of that name; without one the default.

        Args:
            any_name: whether a name that is not known means the only model, where there is one alone.

        Raises:
            Refused: there is no such model, or it is still loading.
        """
        hosted = self._hosted
        if self._draining:
            raise Refused("unavailable", "the server is shutting down; ask another, or try again", retry_after_s=1.0)
        if not self.is_ready:
            raise Refused("unavailable", "the server is still loading its models; try again", retry_after_s=1.0)
        if not name:
            return next(iter(hosted.values()))
        name = name if name in hosted else self.others.get(name, name)
        if name not in hosted and any_name and len(hosted) == 1:
            return next(iter(hosted.values()))
        if name not in hosted:
            raise Refused(
                "unknown_model", f"there is no model {short(name)} here{suggest(name, hosted)}", place="model"
            )
        return hosted[name]

    def check_room(self) -> None:
        """See, before a request is read, that one of the models takes requests.

        Raises:
            Refused: the queues of all are full, or stand still.
        """
        refusals = [hosted.scheduler.refusal() for hosted in self.hosted]
        if refusals and refusals[0] is not None and None not in refusals:
            raise refusals[0]

    def load_all(self) -> None:
        """Load every model, one after the other.

        Raises:
            NotFound, BadModel, BadInput: as `RewardModel.load` and `host`.
        """
        with self._changing:
            for name in self.names:
                self._hosted = {**self._hosted, name: self._load(name)}

    def reload(self, name: str, *, drain_s: float) -> tuple[Hosted, Hosted]:
        """Load a model again and put it in place of the one before, which answers what it has accepted and ends.

        Returns:
            The one before, and the one now.

        Raises:
            NotFound, BadModel, BadInput: the new one cannot be served; the one before stays.
            PrefrankError: the server is shutting down.
        """
        self._changers.add(get_ident())
        try:
            with self._changing:
                if self._draining:
                    raise PrefrankError("the server is shutting down")
                before = self._hosted[name]
                now = self._load(name)
                self._hosted = {**self._hosted, name: now}
                if self._draining:  # meanwhile
                    now.scheduler.stop()
            before.scheduler.close(drain_s)
        finally:
            self._changers.discard(get_ident())
        return before, now

    def close(self, timeout_s: float) -> bool:
        """Refuse all requests from here on, and end the queues after what they have accepted.

        Returns:
            Whether they ended in this time.
        """
        self._draining = True
        until = time.monotonic() + timeout_s
        for hosted in self.hosted:
            hosted.scheduler.stop()  # all of them take no more, before one is waited for
        return all(hosted.scheduler.close(max(0.0, until - time.monotonic())) for hosted in self.hosted)


async def within(models: Models, question: Question, *, truncates: bool, timeout_s: float) -> Answered:
    """The answer of the model that is asked, if it comes in this time; otherwise the rows are taken back.

    Raises:
        Refused: no answer in time, or as `Models.of` and `Hosted.answer`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                hosted = models.of(question.model, any_name=question.any_name)
                try:
                    return await hosted.answer(question, truncates=truncates)
                except Refused as refused:
                    if refused.kind != "unavailable" or models.of(hosted.about.name) is hosted:
                        raise  # else another has just come in its place
    except TimeoutError:
        raise Refused("timeout", f"there was no answer within {timeout_s:g} s; send fewer rows at once") from None
