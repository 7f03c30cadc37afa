"""What stands in a model's queue: requests on their way, and the distinct rows that they want."""

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from prefrank.types import Row
from prefrank.wire.route import NO_TIME, Asked, Failed, Refused, Times

Key = tuple[bytes, bytes]
"""Token ids and token types of a row: rows of one key have one score."""


@dataclass(frozen=True, slots=True)
class Read:
    """A row and its score, before the score's facts are written down; and where its time went."""

    row: Row
    value: float
    times: Times = NO_TIME


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way.

    Args:
        may_cut: whether its rows may be.
        future: resolved with `outcomes`, on its own loop.
        missing: how many of the outcomes are still to come.
        gone: whether nobody waits for it any longer.
        came, entered: when, and when its rows stood in the queue, by the monotonic clock.
        times: of tokenizing, and the wait before.
    """

    asked: Sequence[Asked]
    may_cut: bool
    future: "asyncio.Future[list[Read | Failed]]"
    loop: asyncio.AbstractEventLoop
    characters: int
    outcomes: list[Read | Failed | None] = field(default_factory=list)
    missing: int = 0
    gone: bool = False
    came: float = field(default_factory=time.monotonic)
    entered: float = 0.0
    times: Times = NO_TIME

    def times_in(self, began: float, ended: float) -> Times:
        """Of a row whose batch began and ended then, by the monotonic clock. It may have joined an equal row that was
        under way.
        """
        waited = max(0.0, began - self.entered)
        return Times(self.times.wait_s + waited, self.times.tokenize_s, ended - max(began, self.entered))


@dataclass(slots=True, eq=False)
class Entry:
    """A distinct row that waits, and the places in requests that want it.

    Args:
        came: when, by the monotonic clock.
    """

    key: Key
    row: Row
    came: float
    wanted_by: list[tuple[Ticket, int, Row]] = field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        return any(not ticket.gone for ticket, _, _ in self.wanted_by)


def place_of(error: BaseException) -> str:
    """Where an error happened, for a log. Its words are left out: they may hold the texts of requests."""
    return "".join(traceback.format_tb(error.__traceback__))


def key_of(row: Row) -> Key:
    return row.ids.tobytes(), row.types.tobytes()


def characters_of(asked: Asked) -> int:
    """Of all its texts."""
    return len(asked.reply) + sum(len(turn.text) for turn in asked.prompt)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The state of a queue.

    Args:
        open_rows: asked for and not answered.
        rows: distinct, read, and not begun.
        age_s: of the oldest of them.
        busy_s: for how long the longest batch has been under way.
        alive: whether all threads are.
    """

    open_rows: int
    rows: int
    age_s: float
    busy_s: float
    alive: bool


def deliver(tickets: Sequence[Ticket]) -> None:
    """Answer requests on their event loops, all of one loop in one step."""
    _on_loops(tickets, _answer)


def refuse(tickets: Sequence[Ticket], reason: str) -> None:
    """Tell requests that the queue cannot answer them now."""

    def answer(refused: Sequence[Ticket]) -> None:
        for ticket in refused:
            if not ticket.future.done():
                ticket.future.set_exception(Refused("unavailable", reason, retry_after_s=1.0))

    _on_loops(tickets, answer)


def _on_loops(tickets: Sequence[Ticket], answer: Callable[[Sequence[Ticket]], None]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[Ticket]] = {}
    for ticket in tickets:
        loops.setdefault(ticket.loop, []).append(ticket)
    for loop, answered in loops.items():
        with suppress(RuntimeError):  # the loop is closed, nobody waits
            loop.call_soon_threadsafe(answer, answered)


def _answer(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        if not ticket.future.done():
            ticket.future.set_result([outcome for outcome in ticket.outcomes if outcome is not None])
