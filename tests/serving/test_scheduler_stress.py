"""A queue under requests that come, go and fail at random moments: its counts are right whatever happens when."""

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from prefrank.scoring import RewardModel
from prefrank.serving.pace import Pace
from prefrank.serving.scheduler import Scheduler
from prefrank.serving.tickets import Read
from prefrank.types import Batch, Turn
from prefrank.wire.route import Asked, Failed, Refused
from tests.faults.hooks import Counting
from tests.tiny import bert_folder

WORDS = "mix flour water salt and yeast the dough needs an hour to rise hello there".split()  # noqa: SIM905
POISON, NOT_A_NUMBER = 27, 29
"""Tokens of rows on which the engine fails, and which it gives no number."""


class Fitful:
    """An engine of three streams that takes its time, and fails on rows of some lengths."""

    precision, kernels, streams = "float32", "fitful", 3

    def __init__(self, engine: Any, chance: random.Random) -> None:
        self._engine = engine
        self._chance = chance
        self._one = threading.Lock()

    def __call__(self, batch: Batch) -> torch.Tensor:
        time.sleep(self._chance.choice([0.0, 0.0, 0.001, 0.003]))
        lengths = [int(end - start) for start, end in zip(batch.starts, batch.starts[1:], strict=False)]
        if POISON in lengths:
            raise MemoryError
        with self._one:
            scores = self._engine(batch).clone()
        for place, length in enumerate(lengths):
            if length == NOT_A_NUMBER:
                scores[place] = float("nan")
        return scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder: Path = bert_folder(tmp_path_factory.mktemp("bert"))
    return RewardModel.load(folder)


@pytest.fixture(scope="module")
def solo(model: RewardModel) -> dict[Asked, float | None]:
    """Rows of many lengths, some of them bad, and the score of each alone."""
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=1 + place % 27)) for place in range(60)]
    known: dict[Asked, float | None] = {}
    for text in texts:
        row = Asked((Turn("user", "why"),), text)
        score = model.score_pairs([(row.prompt, row.reply)])[0]
        known[row] = None if score.tokens in (POISON, NOT_A_NUMBER) else score.value
    known[Asked((Turn("user", "why"),), "\ud800")] = None
    assert 2 <= sum(value is None for value in known.values()) < 10
    return known


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_scores_are_right_under_any_interleaving(
    model: RewardModel, solo: dict[Asked, float | None], seed: int
) -> None:
    chance = random.Random(seed)
    observer = Counting()
    pace = Pace(max_tokens=60, window=20, gather_s=0.001, max_waiting_rows=40, kept_scores=5 * (seed % 2))
    scheduler = Scheduler(model.encoder, Fitful(model.engine, chance), model.network.causal, pace, observer)
    ended: dict[str, int] = dict.fromkeys(("answered", "refused", "left", "closed"), 0)

    async def ask() -> None:
        await asyncio.sleep(chance.random() * 0.3)
        rows = chance.choices(list(solo), k=chance.randint(1, 4))
        asking = asyncio.ensure_future(scheduler.score(rows))
        if chance.random() < 0.4:
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01]))
            asking.cancel()
        try:
            outcomes = await asking
        except asyncio.CancelledError:
            ended["left"] += 1
        except Refused as refused:
            ended["closed" if refused.kind == "unavailable" else "refused"] += 1
        else:
            ended["answered"] += 1
            for row, outcome in zip(rows, outcomes, strict=True):
                if (right := solo[row]) is None:
                    assert isinstance(outcome, Failed)
                else:
                    assert isinstance(outcome, Read)
                    assert outcome.value == right

    async def all_of_them(count: int) -> None:
        asks = asyncio.gather(*(ask() for _ in range(count)))
        if seed == 3:  # closed amid them
            await asyncio.sleep(0.15)
            await asyncio.to_thread(scheduler.close, 10.0)
        await asks

    asyncio.run(asyncio.wait_for(all_of_them(250), 30))
    assert sum(ended.values()) == 250
    assert min(ended["answered"], ended["left"]) > 10
    assert ended["closed"] == 0 or seed == 3
    assert scheduler.waiting().alive
    scheduler.close(10.0)
    state = scheduler.waiting()
    assert (state.open_rows, state.rows, state.busy_s) == (0, 0, 0)
    assert not scheduler._open
    assert scheduler._open_characters == 0
    assert not scheduler._under_way
    assert not scheduler._unread
    assert not [thread.name for thread in scheduler._threads if thread.is_alive()]


def test_one_slow_time_is_forgotten(model: RewardModel) -> None:
    # A batch that stands for a while makes the queue seem slow; small ones after it must be able to say otherwise
    waits = [0.3]

    class Once(Fitful):
        def __call__(self, batch: Batch) -> torch.Tensor:
            time.sleep(waits.pop() if waits else 0.0)
            return self._engine(batch)

    pace = Pace(max_tokens=60, max_wait_s=0.05)
    scheduler = Scheduler(model.encoder, Once(model.engine, random.Random(0)), None, pace, Counting())
    large = [Asked((Turn("user", "why"),), " ".join(WORDS * 3))]

    async def ask() -> None:
        await scheduler.score(large)
        slow = scheduler._expected_s(100)
        for place in range(40):
            await scheduler.score([Asked((Turn("user", "why"),), str(place))])
        assert scheduler._expected_s(100) < slow / 2

    asyncio.run(asyncio.wait_for(ask(), 20))
    scheduler.close(5.0)
