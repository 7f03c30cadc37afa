"""The queue of one model: every score is the solo score, and nobody waits for nothing."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrank.scoring import RewardModel
from prefrank.serving.observer import Silent
from prefrank.serving.scheduler import Pace, Scheduler
from prefrank.serving.tickets import Read
from prefrank.types import Batch, Turn
from prefrank.wire.route import Asked, Failed, Refused
from tests.tiny import bert_folder, decoder_folder, neox_folder

PACE = Pace(max_tokens=200, gather_s=0.05)
WORDS = "mix flour water salt and yeast the dough needs an hour to rise hello there".split()  # noqa: SIM905


class Counting:
    """An observer that adds up what it is told."""

    def __init__(self) -> None:
        self.rows = self.tokens = self.computed = self.again = self.left = self.turned_away = 0

    def read(self, rows: int, seconds: float) -> None:
        assert seconds >= 0

    def reused(self, rows: int) -> None:
        self.again += rows

    def refused(self, rows: int) -> None:
        self.turned_away += rows

    def dropped(self, rows: int) -> None:
        self.left += rows

    def batch(self, *, rows: int, tokens: int, computed: int, seconds: float, waited: Sequence[float]) -> None:
        assert len(waited) == rows
        assert min(waited) >= 0
        self.rows, self.tokens, self.computed = self.rows + rows, self.tokens + tokens, self.computed + computed


class Held:
    """An engine that scores nothing until it may, and fails on rows of certain lengths."""

    precision, kernels, streams = "float32", "held", 1

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.may = threading.Event()
        self.began = threading.Event()
        self.batches: list[Batch] = []
        self.poison: set[int] = set()
        self.nan: set[int] = set()

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        self.began.set()
        assert self.may.wait(10)
        lengths = [int(end - start) for start, end in zip(batch.starts, batch.starts[1:], strict=False)]
        if self.poison & set(lengths):
            raise MemoryError
        scores = self.engine(batch)
        for place, length in enumerate(lengths):
            if length in self.nan:
                scores[place] = float("nan")
        return scores


@pytest.fixture(scope="module", params=["bert", "decoder", "neox"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    makers: dict[str, Callable[[Path], Path]] = {"bert": bert_folder, "decoder": decoder_folder, "neox": neox_folder}
    return RewardModel.load(makers[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(bert_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.load(decoder_folder(tmp_path_factory.mktemp("decoder")))


@pytest.fixture
def opened() -> Iterator[Callable[..., Scheduler]]:
    """Makes queues, and closes them."""
    made = []

    def make(model: RewardModel, engine: Any = None, observer: Any = None, **pace: Any) -> Scheduler:
        causal = model.network.causal
        scheduler = Scheduler(
            model.encoder, engine or model.engine, causal, replace(PACE, **pace), observer or Silent()
        )
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.close(5.0)


def asked(prompt: str, *replies: str) -> list[Asked]:
    return [Asked((Turn("user", prompt),), reply) for reply in replies]


def run(work: Awaitable[Any]) -> Any:
    async def within() -> Any:
        return await asyncio.wait_for(work, 20)

    return asyncio.run(within())


def values(outcomes: Sequence[Read | Failed]) -> list[float]:
    assert all(isinstance(outcome, Read) for outcome in outcomes), outcomes
    return [outcome.value for outcome in outcomes if isinstance(outcome, Read)]


def test_every_score_is_the_solo_score_in_any_mix(model: RewardModel, opened: Callable[..., Scheduler]) -> None:
    chance = random.Random(0)

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 25)))

    prompts = [text() for _ in range(5)]
    requests = [asked(chance.choice(prompts), *(text() for _ in range(chance.randint(1, 6)))) for _ in range(40)]
    scheduler = opened(model, gather_s=0.001)

    async def all_at_once() -> list[list[Read | Failed]]:
        return await asyncio.gather(*(scheduler.score(request) for request in requests))

    for request, outcomes in zip(requests, run(all_at_once()), strict=True):
        solo = [model.score_pairs([(each.prompt, each.reply)])[0].value for each in request]
        if model.engine.kernels == "torch":
            assert values(outcomes) == pytest.approx(solo, abs=1e-5)
        else:
            assert values(outcomes) == solo


def test_equal_rows_are_scored_once_and_each_request_gets_its_scores(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    engine, observer = Held(bert.engine), Counting()
    scheduler = opened(bert, engine, observer)

    async def twice() -> Any:
        first = asyncio.ensure_future(scheduler.score(asked("Why?", "So.", "So.")))
        await asyncio.to_thread(engine.began.wait, 10)
        second = asyncio.ensure_future(scheduler.score(asked("Why?", "So.")))  # the first is under way
        await asyncio.sleep(0.1)
        engine.may.set()
        return await first, await second

    first, second = run(twice())
    assert (observer.rows, observer.again) == (1, 2)
    assert values(first) == [values(second)[0]] * 2


@pytest.mark.parametrize("together", [True, False])
def test_a_prompt_with_several_replies_is_computed_once_also_over_requests(
    decoder: RewardModel, opened: Callable[..., Scheduler], together: bool
) -> None:
    observer = Counting()
    scheduler = opened(decoder, observer=observer, max_tokens=1000, gather_s=0.2)
    rows = asked(" ".join(WORDS * 3), *WORDS[:8])

    async def in_requests() -> Any:
        if together:
            return await scheduler.score(rows)
        return await asyncio.gather(*(scheduler.score([each]) for each in rows))

    run(in_requests())
    assert observer.rows == 8
    assert observer.computed < observer.tokens / 4


def test_a_reply_that_comes_a_moment_later_is_computed_with_its_prompt(
    decoder: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    observer = Counting()
    scheduler = opened(decoder, observer=observer, max_tokens=1000, gather_s=2.0)
    first, second = asked(" ".join(WORDS * 3), "a", "b")

    async def one_after_the_other() -> None:
        earlier = asyncio.ensure_future(scheduler.score([first]))
        await asyncio.sleep(0.1)
        await asyncio.gather(earlier, scheduler.score([second]))

    run(one_after_the_other())
    assert observer.computed < observer.tokens * 0.7


def test_rows_of_callers_that_went_are_not_scored(bert: RewardModel, opened: Callable[..., Scheduler]) -> None:
    engine, observer = Held(bert.engine), Counting()
    scheduler = opened(bert, engine, observer)

    async def leave() -> Any:
        first = asyncio.ensure_future(scheduler.score(asked("Why?", "So.")))
        await asyncio.to_thread(engine.began.wait, 10)
        gone = [asyncio.ensure_future(scheduler.score(asked("Why?", word))) for word in WORDS[:5]]
        stays = asyncio.ensure_future(scheduler.score(asked("Why?", WORDS[0])))
        await asyncio.sleep(0.1)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        engine.may.set()
        return await first, await stays

    run(leave())
    assert (observer.rows, observer.left) == (2, 4)  # the fifth is what the one that stays wants too
    assert scheduler.waiting().open_rows == 0


def test_a_row_that_breaks_the_engine_fails_alone(bert: RewardModel, opened: Callable[..., Scheduler]) -> None:
    engine = Held(bert.engine)
    engine.may.set()
    rows = asked("Why?", "So.", "So so so so.", "No.")
    length = len(bert.encoder.encode_pairs([(rows[1].prompt, rows[1].reply)])[0].ids)
    for bad in ("poison", "nan"):
        setattr(engine, bad, {length})
        outcomes = run(opened(bert, engine).score(rows))
        assert isinstance(outcomes[1], Failed)
        assert outcomes[1].kind == "failed"
        assert values([outcomes[0], outcomes[2]]) == [bert.score("Why?", [reply])[0].value for reply in ("So.", "No.")]
        engine.poison = engine.nan = set()


def test_a_text_that_cannot_be_read_fails_alone_and_says_which(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    scheduler = opened(bert)
    outcomes = run(scheduler.score(asked("Why?", "So.", "\ud800", "No.")))
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].kind == "text"
    assert "the reply of row 1 has a lone surrogate" in outcomes[1].reason
    assert values([outcomes[0], outcomes[2]])


def test_a_row_that_may_not_be_cut_is_refused_and_says_by_how_much(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    rows = asked("Why?", "So.", "so " * 200)
    scheduler = opened(bert)
    outcomes = run(scheduler.score(rows, may_cut=False))
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].kind == "too_long"
    assert "more than the model takes" in outcomes[1].reason
    cut = run(scheduler.score(rows))[1]
    assert isinstance(cut, Read)
    assert cut.row.cut_reply > 0


def test_scores_that_are_kept_are_not_computed_again(bert: RewardModel, opened: Callable[..., Scheduler]) -> None:
    observer = Counting()
    scheduler = opened(bert, observer=observer, kept_scores=2)
    first = values(run(scheduler.score(asked("Why?", "a", "b", "c"))))
    assert values(run(scheduler.score(asked("Why?", "b", "c")))) == first[1:]
    assert (observer.rows, observer.again) == (3, 2)
    assert values(run(scheduler.score(asked("Why?", "a")))) == first[:1]  # had to go for the others
    assert observer.rows == 4


def test_a_full_queue_refuses_at_once_and_takes_rows_again_when_it_is_empty(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    engine, observer = Held(bert.engine), Counting()
    scheduler = opened(bert, engine, observer, max_waiting_rows=3)

    async def flood() -> None:
        first = asyncio.ensure_future(scheduler.score(asked("Why?", "a", "b", "c")))
        await asyncio.to_thread(engine.began.wait, 10)
        with pytest.raises(Refused, match="3 rows are waiting") as refused:
            await scheduler.score(asked("Why?", "d"))
        assert refused.value.kind == "overloaded"
        assert refused.value.retry_after_s == 1.0
        engine.may.set()
        await first
        await scheduler.score(asked("Why?", "d"))
        await scheduler.score(asked("Why?", *WORDS))  # more than fit, but nothing waits

    run(flood())
    assert observer.turned_away == 1


def test_a_queue_that_takes_too_long_refuses_by_its_speed(bert: RewardModel, opened: Callable[..., Scheduler]) -> None:
    engine = Held(bert.engine)
    engine.may.set()
    scheduler = opened(bert, engine, max_tokens=10, max_wait_s=1e-6)

    async def flood() -> None:
        await scheduler.score(asked("Why?", " ".join(WORDS)))  # from which it learns its speed
        engine.may.clear()
        engine.began.clear()
        first = asyncio.ensure_future(scheduler.score(asked("Why?", "a")))
        await asyncio.to_thread(engine.began.wait, 10)
        with pytest.raises(Refused) as refused:
            await scheduler.score(asked("Why?", "b"))
        assert refused.value.kind == "overloaded"
        engine.may.set()
        await first

    run(flood())


def test_closing_answers_what_was_accepted_and_refuses_the_rest(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    engine = Held(bert.engine)
    scheduler = opened(bert, engine)

    async def close() -> Any:
        accepted = [asyncio.ensure_future(scheduler.score(asked("Why?", word))) for word in WORDS[:6]]
        await asyncio.to_thread(engine.began.wait, 10)
        closing = asyncio.ensure_future(asyncio.to_thread(scheduler.close, 10.0))
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as refused:
            await scheduler.score(asked("Why?", "late"))
        assert refused.value.kind == "unavailable"
        engine.may.set()
        await closing
        return await asyncio.gather(*accepted)

    assert [len(values(outcomes)) for outcomes in run(close())] == [1] * 6
    assert scheduler.waiting().rows == 0


def test_a_fault_of_the_queue_itself_leaves_nobody_waiting(
    bert: RewardModel, opened: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Counting):
        def batch(self, **facts: Any) -> None:
            raise RuntimeError("a fault")

        def read(self, rows: int, seconds: float) -> None:
            if rows == 2:
                raise RuntimeError("another")

    scheduler = opened(bert, observer=Broken())
    for replies in (("a",), ("a", "b"), ("c",)):
        outcomes = run(scheduler.score(asked("Why?", *replies)))
        assert [isinstance(outcome, Failed) for outcome in outcomes] == [True] * len(replies)
    assert scheduler.waiting().alive
    assert scheduler.waiting().open_rows == 0
    assert "the queue failed with RuntimeError" in caplog.text


def test_the_state_of_a_queue_tells_its_age_and_what_is_under_way(
    bert: RewardModel, opened: Callable[..., Scheduler]
) -> None:
    engine = Held(bert.engine)
    scheduler = opened(bert, engine)

    async def look() -> None:
        first = asyncio.ensure_future(scheduler.score(asked("Why?", "a")))
        await asyncio.to_thread(engine.began.wait, 10)
        second = asyncio.ensure_future(scheduler.score(asked("Why?", "b")))
        await asyncio.sleep(0.1)
        state = scheduler.waiting()
        assert (state.open_rows, state.rows, state.alive) == (2, 1, True)
        assert state.busy_s >= state.age_s > 0
        engine.may.set()
        await asyncio.gather(first, second)

    run(look())
    state = scheduler.waiting()
    assert (state.open_rows, state.rows, state.age_s) == (0, 0, 0)
