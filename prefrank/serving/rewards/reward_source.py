"""Where rewards come from: servers by their addresses, or a folder whose model is loaded in the process that scores.

A `Source` is a value that pickles: what it opens stays behind, and is opened again where the copy is used, once in each
process, forked ones included.
"""

import asyncio
import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefrank.errors import BadInput, BadModel, PrefrankError, short
from prefrank.serving.client.answer_reading import check_fingerprint
from prefrank.serving.client.answers import Scored, Scores
from prefrank.serving.client.blocking import Client
from prefrank.serving.client.client_options import ClientOptions, base_urls
from prefrank.types import Prompt

if TYPE_CHECKING:
    from prefrank.scoring.reward_model import RewardModel

Pair = tuple[Prompt, str]


class _Opened:
    """What is open in this process. A pickled copy has nothing open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = -1
        self._held: Any = None
        self._left: Any = None  # what the process had that this one was forked of: its threads are not here to close it

    def __reduce__(self) -> tuple[Callable[[], "_Opened"], tuple[()]]:
        return _Opened, ()

    def get(self, make: Callable[[], Any]) -> Any:
        """What `make` gave when it was first asked for in this process."""
        if self._process != os.getpid():
            self._lock = threading.Lock()  # in a forked process the other may be held for ever
            self._left, self._held, self._process = self._held, None, os.getpid()
        with self._lock:
            if self._held is None:
                self._held = make()
            return self._held

    def close(self) -> None:
        held, self._held = self._held, None
        if isinstance(held, Client):
            held.close()


@dataclass(frozen=True, slots=True)
class Source:
    """Where scores come from.

    Args:
        place: the address of a server, those of several replicas, or the folder (or hub id) of a reward model.
        options: how to ask a server; of a folder, only the fingerprint is looked at.
    """

    place: str | tuple[str, ...]
    options: ClientOptions = field(default_factory=ClientOptions)
    opened: _Opened = field(default_factory=_Opened, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.is_server:
            base_urls(self.place)
        elif not isinstance(self.place, str) or not self.place:
            raise BadInput(
                f"{short(self.place)} is no source of rewards; wanted http://host:port, several, or a folder"
            )

    @property
    def is_server(self) -> bool:
        first = self.place if isinstance(self.place, str) else next(iter(self.place), "")
        return isinstance(first, str) and first.startswith(("http://", "https://"))

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """The scores of pairs; one that cannot be scored alone is a failure of its row.

        Raises:
            NotFound: no answer of a server; no such folder.
            BadModel: another model than is wanted, or none.
            BadInput: a server refuses all of it, such as for a wrong key.
        """
        if self.is_server:
            return self._client().score_pairs(pairs)
        local = self._local()
        with local.lock:
            return _score_here(local.model, pairs)

    async def score_later(self, pairs: Sequence[Pair]) -> Scores:
        """As `score`, without holding up the event loop, whichever it is."""
        if self.is_server:
            return await asyncio.wrap_future(self._client().later(pairs))
        return await asyncio.to_thread(self.score, pairs)

    def score_texts(self, texts: Sequence[str]) -> Scores:
        """The scores of whole texts that a chat template has been through. Errors as `score`."""
        self._check_texts()
        return self._client().score_texts(texts)

    async def score_texts_later(self, texts: Sequence[str]) -> Scores:
        """As `score_texts`, without holding up the event loop."""
        self._check_texts()
        return await asyncio.wrap_future(self._client().later_texts(texts))

    def _check_texts(self) -> None:
        if not self.is_server:
            raise BadInput("a folder as a source takes no whole texts; serve it, and give the server's address")

    def close(self) -> None:
        """Close what is open in this process; the next call opens it again."""
        self.opened.close()

    def _client(self) -> Client:
        client: Client = self.opened.get(lambda: Client(self.place, self.options))
        return client

    def _local(self) -> "_Local":
        local: _Local = self.opened.get(self._load)
        return local

    def _load(self) -> "_Local":
        from prefrank.scoring.reward_model import RewardModel

        model = RewardModel.load(str(self.place))
        check_fingerprint(model.fingerprint, self.options.fingerprint, str(self.place))
        return _Local(model, threading.Lock())


@dataclass(frozen=True, slots=True)
class _Local:
    """A model of this process, which one thread asks at a time."""

    model: "RewardModel"
    lock: AbstractContextManager[Any]


def _score_here(model: "RewardModel", pairs: Sequence[Pair]) -> Scores:
    """Scores by a model in this process; where one row cannot be scored, each by itself."""
    try:
        rows = _rows(model, pairs, 0)
    except PrefrankError:
        rows = [row for place, pair in enumerate(pairs) for row in _alone(model, pair, place)]
    return Scores(model="local", fingerprint=model.fingerprint, scale="logit", scores=tuple(rows))


def _alone(model: "RewardModel", pair: Pair, place: int) -> list[Scored]:
    try:
        return _rows(model, [pair], place)
    except PrefrankError as error:
        return [Scored(index=place, score=None, error=str(error))]


def _rows(model: "RewardModel", pairs: Sequence[Pair], first: int) -> list[Scored]:
    rows = []
    for place, score in enumerate(model.score_pairs(list(pairs), allow_failures=True), first):
        finite = math.isfinite(score.value)
        rows.append(
            Scored(
                index=place,
                score=score.value if finite else None,
                tokens=score.tokens,
                cut_prompt=score.cut_prompt,
                cut_reply=score.cut_reply,
                past_trained=score.past_trained,
                error=None if finite else "the model's score is not a finite number",
            )
        )
    return rows


def values_of_all(scores: Scores, if_failed: float | None) -> list[float]:
    """A number for each row, for trainers that take nothing else.

    Args:
        if_failed: the number of a row that could not be scored; None: there is none, and one is an error.

    Raises:
        BadModel: a row could not be scored.
    """
    if if_failed is None and (failures := scores.failures):
        raise BadModel(
            f"{len(failures)} of {len(scores.scores)} rows could not be scored; row {failures[0].index}:"
            f" {failures[0].error}. if_failed may say what such a row is worth"
        )
    worth = math.nan if if_failed is None else float(if_failed)
    return [worth if row.score is None else row.score for row in scores.scores]
