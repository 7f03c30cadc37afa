"""A live server's model with something in its way, and an observer that counts."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from torch import Tensor

from prefrank.types import Batch
from tests.serving.live import Live


class Hooked:
    """An engine before which something happens, and after which its scores may be changed.

    Args:
        before: is called with each batch.
        after: makes other scores of a batch and its scores.
    """

    precision, kernels, streams = "float32", "hooked", 1

    def __init__(self, engine: Any, before: Callable[[Batch], None], after: Callable[[Batch, Tensor], Tensor]) -> None:
        self._engine = engine
        self._before = before
        self._after = after

    def __call__(self, batch: Batch) -> Tensor:
        self._before(batch)
        return self._after(batch, self._engine(batch))


@contextmanager
def hooked(
    live: Live,
    before: Callable[[Batch], None] = lambda batch: None,
    after: Callable[[Batch, Tensor], Tensor] = lambda batch, scores: scores,
) -> Iterator[None]:
    """A server's default model, with its engine wrapped for the time."""
    scheduler = live.models.of(None).scheduler
    engine = scheduler.engine
    scheduler.engine = Hooked(engine, before, after)
    try:
        yield
    finally:
        scheduler.engine = engine


class Gate:
    """What an engine waits for: its batches stand until the gate is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.batches = 0

    def __call__(self, batch: Batch) -> None:
        self.batches += 1
        self.reached.set()
        assert self.opened.wait(20), "the test did not open the gate"


def lengths(batch: Batch) -> list[int]:
    """Tokens of each row."""
    return [int(end - start) for start, end in zip(batch.starts, batch.starts[1:], strict=False)]


class Counting:
    """An observer that adds up rows: scored, and dropped because nobody waited."""

    def __init__(self) -> None:
        self.scored = self.dropped_rows = self.refused_rows = self.read_rows = 0

    def read(self, rows: int, seconds: float) -> None:
        self.read_rows += rows

    def reused(self, rows: int) -> None:
        pass

    def refused(self, rows: int) -> None:
        self.refused_rows += rows

    def dropped(self, rows: int) -> None:
        self.dropped_rows += rows

    def batch(self, *, rows: int, tokens: int, computed: int, seconds: float, waited: Sequence[float]) -> None:
        self.scored += rows

    def answered(self, asked: Any, outcomes: Any, reply_tokens: Any) -> None:
        pass


def ask(*replies: str, prompt: str = "how do I bake bread") -> dict[str, Any]:
    """A body of /api/score."""
    return {"prompt": prompt, "replies": list(replies)}


def scores(live: Live, *replies: str, **headers: str) -> list[float | None]:
    """What a server says of replies to a prompt."""
    answer = httpx.post(f"{live.url}/api/score", json=ask(*replies), headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    return [row["score"] for row in answer.json()["scores"]]


def solo(live: Live, *replies: str) -> list[float]:
    """What its model says of each of them alone, without a server."""
    model = live.models.of(None).model
    return [model.score("how do I bake bread", [reply])[0].value for reply in replies]
