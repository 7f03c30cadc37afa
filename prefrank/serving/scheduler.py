"""One model's queue: rows of all requests to batches, batches to scores.

    request -> ticket -> (a thread reads texts into rows) -> waiting rows -> (a thread for each stream) -> scores

- Requests that came together are read together, so that each distinct text is tokenized once.
- Rows of equal tokens are one entry, scored once, also while the first is under way; kept scores answer at once.
- A batch is the oldest waiting row and, of those that came soon after it, the ones it goes best with (`choosing.py`).
  So a row waits at most for as many batches as rows came before it.
- A row whose requests have all gone is dropped before it is scored. A batch that fails is tried again row by row.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Condition, Event, Lock, Thread

import numpy as np

from prefrank.errors import PrefrankError
from prefrank.model import Engine
from prefrank.model.engine import TORCH
from prefrank.serving.choosing import choose
from prefrank.serving.observer import Observer
from prefrank.serving.pace import Pace
from prefrank.serving.reading import read_requests, too_long
from prefrank.serving.tickets import Entry, Key, Read, Ticket, Waiting, characters_of, deliver, key_of, place_of, refuse
from prefrank.text import TextEncoder, plan_batches
from prefrank.types import Causal, Row
from prefrank.wire.route import Asked, Failed, Refused, Times

READ_AT_ONCE = 200_000
"""Characters of the texts that are tokenized together, so that no request waits long for those of others."""


class Scheduler:
    """A queue before one engine. `score` is called on an event loop, from any number of requests at once.

    Args:
        encoder: reads prompts and replies.
        engine: scores batches; as many threads call it as it has streams.
        causal: of the network.
        pace: bounds and times.
        observer: told what happens, on the threads where it happens.
    """

    def __init__(
        self, encoder: TextEncoder, engine: Engine, causal: Causal | None, pace: Pace, observer: Observer
    ) -> None:
        self.encoder = encoder
        self.engine = engine
        self.causal = causal
        self.pace = pace
        self.observer = observer
        self._lock = Lock()
        self._to_read = Condition(self._lock)
        self._to_score = Condition(self._lock)
        self._unread: deque[Ticket] = deque()
        self._reading = 0  # tickets that the reader holds
        self._waiting: OrderedDict[Key, Entry] = OrderedDict()  # the oldest first
        self._under_way: dict[Key, Entry] = {}
        self._kept: OrderedDict[Key, float] = OrderedDict()
        self._open: set[Ticket] = set()  # those that are not answered
        self._open_rows = self._open_characters = 0  # of these
        self._characters_per_s = 0.0
        self._busy_since: dict[int, float] = {}
        self._closing = False
        self._ended = Event()
        self._threads = [self._thread("reader", self._read_all)]
        for number in range(max(1, engine.streams)):
            self._threads.append(self._thread(f"stream-{number}", partial(self._score_all, number)))
        self._watchdog = self._thread("watchdog", self._watch)
        for thread in (*self._threads, self._watchdog):
            thread.start()

    def _thread(self, name: str, work: Callable[[], None]) -> Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # the watchdog sees that the thread is no more
                _log.critical("the queue's %s ended with %s\n%s", name, type(error).__name__, place_of(error))

        return Thread(target=run, name=f"prefrank-{name}", daemon=True)

    async def score(self, asked: Sequence[Asked], *, may_cut: bool = True) -> list[Read | Failed]:
        """The scores of these rows, in order. A caller that is cancelled takes its rows back.

        Raises:
            Refused: the queue is full or too old, it is closing, a text cannot be encoded, or a row is too long where
                it may not be cut.
        """
        loop = asyncio.get_running_loop()
        characters = sum(map(characters_of, asked))
        ticket = Ticket(asked, may_cut, loop.create_future(), loop, characters)
        with self._lock:
            if (refusal := self._refusal(len(asked))) is not None:
                self.observer.refused(len(asked))
                raise refusal
            self._open.add(ticket)
            self._open_rows += len(asked)
            self._open_characters += characters
            self._unread.append(ticket)
            self._to_read.notify()
        try:
            return await ticket.future
        finally:
            with self._lock:
                ticket.gone = True
                self._open.discard(ticket)
                self._open_rows -= len(asked)
                self._open_characters -= characters

    def refusal(self) -> Refused | None:
        """Why no request would be taken now; None where one would."""
        with self._lock:
            return self._refusal(1)

    def _refusal(self, rows: int) -> Refused | None:
        if self._closing:
            return Refused("unavailable", "the server is closing this model; try again", retry_after_s=1.0)
        if (trouble := self._trouble()) is not None:
            return Refused("unavailable", trouble, retry_after_s=1.0)
        expected = self._expected_s(self._open_characters)
        is_full = self._open_rows + rows > self.pace.max_waiting_rows and self._open_rows
        if not is_full and expected <= self.pace.max_wait_s:
            return None
        return Refused(
            "overloaded",
            f"{self._open_rows:,} rows are waiting, which takes about {expected:.1f} s; send fewer at once, or try"
            " again later",
            retry_after_s=max(1.0, expected / 2),
        )

    def _trouble(self) -> str | None:
        """Why nothing can be scored. The lock is held."""
        if not self._closing and not all(thread.is_alive() for thread in self._threads):
            return "the model's threads have ended, as the server's log says; the server must be started again"
        if self._busy_s() > self.pace.stall_s:
            return f"the model has worked on one batch for over {self.pace.stall_s:g} s; try again later"
        return None

    def _busy_s(self) -> float:
        now = time.monotonic()
        return max((now - since for since in self._busy_since.values()), default=0.0)

    def _watch(self) -> None:
        """Leave nobody waiting for threads that have ended or stand still."""
        while not self._ended.wait(min(1.0, self.pace.stall_s / 4)):
            with self._lock:
                trouble = self._trouble()
                tickets = list(self._open) if trouble else []
            if trouble:
                refuse(tickets, trouble)

    def _expected_s(self, characters: int) -> float:
        return characters / self._characters_per_s if self._characters_per_s else 0.0

    def waiting(self) -> Waiting:
        """How much waits, for metrics and for the health of the whole."""
        now = time.monotonic()
        with self._lock:
            oldest = next(iter(self._waiting.values()), None)
            age = 0.0 if oldest is None else now - oldest.came
            alive = all(thread.is_alive() for thread in self._threads) or self._closing
            return Waiting(self._open_rows, len(self._waiting), age, self._busy_s(), alive)

    def stop(self) -> None:
        """Take no more requests; those that are there are still answered."""
        with self._lock:
            self._closing = True
            self._to_read.notify_all()
            self._to_score.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Stop, score what is there, and end the threads; what is left after the time is refused.

        Returns:
            Whether all ended in this time.
        """
        self.stop()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            left = list(self._open)
        refuse(left, "the server has closed this model; try again")
        self._ended.set()
        self._watchdog.join()
        return not any(thread.is_alive() for thread in self._threads)

    # Reading: texts to rows

    def _read_all(self) -> None:
        while (tickets := self._next_tickets()) is not None:
            try:
                began = time.monotonic()
                read = read_requests(self.encoder, [ticket.asked for ticket in tickets])
                seconds = time.monotonic() - began
                self.observer.read(sum(len(ticket.asked) for ticket in tickets), seconds)
                for ticket in tickets:
                    ticket.times = Times(began - ticket.came, seconds)
                with self._lock:
                    done = [each for each, rows in zip(tickets, read, strict=True) if self._enter(each, rows)]
                deliver(done)
            except Exception as error:  # a fault of ours: the thread goes on, and nobody waits for nothing
                _give_up(tickets, error)
            with self._lock:
                self._reading = 0
                self._to_score.notify_all()

    def _next_tickets(self) -> list[Ticket] | None:
        """Those that came, up to `READ_AT_ONCE` characters; None when there will be no more."""
        with self._lock:
            while not self._unread:
                if self._closing:
                    self._to_score.notify_all()
                    return None
                self._to_read.wait()
            tickets: list[Ticket] = []
            characters = 0
            while self._unread and (not tickets or characters + self._unread[0].characters <= READ_AT_ONCE):
                ticket = self._unread.popleft()
                if not ticket.gone:
                    tickets.append(ticket)
                    characters += ticket.characters
                else:
                    self.observer.dropped(len(ticket.asked))
            self._reading = len(tickets)
            return tickets

    def _enter(self, ticket: Ticket, rows: Sequence[Row | Failed]) -> bool:
        """Take a ticket's rows into the queue; whether it is answered already. The lock is held."""
        ticket.outcomes = [None] * len(rows)
        ticket.entered = now = time.monotonic()
        reused = 0
        for place, row in enumerate(rows):
            if isinstance(row, Row) and (row.cut_prompt or row.cut_reply) and not ticket.may_cut:
                row = too_long(row, place)
            if isinstance(row, Failed):
                ticket.outcomes[place] = row
                continue
            key = key_of(row)
            if (value := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                ticket.outcomes[place] = Read(row, value, ticket.times)
                reused += 1
                continue
            entry = self._waiting.get(key) or self._under_way.get(key)
            if entry is None:
                entry = self._waiting[key] = Entry(key, row, now)
            else:
                reused += 1
            entry.wanted_by.append((ticket, place, row))
            ticket.missing += 1
        self.observer.reused(reused)
        return not ticket.missing

    # Scoring: rows to batches to scores

    def _score_all(self, number: int) -> None:
        while (entries := self._next_batch(number)) is not None:
            try:
                self._score(entries)
            except Exception as error:  # as above
                with self._lock:
                    for entry in entries:
                        self._under_way.pop(entry.key, None)
                _give_up([ticket for entry in entries for ticket, _, _ in entry.wanted_by], error)
            with self._lock:
                self._busy_since.pop(number, None)

    def _next_batch(self, number: int) -> list[Entry] | None:
        """The rows to score next; None when there will be no more."""
        with self._lock:
            while True:
                while not self._waiting:
                    if self._closing and not self._unread and not self._reading:
                        self._to_score.notify_all()
                        return None
                    self._to_score.wait(_CLOSING_S if self._closing else None)
                self._gather()
                if window := self._window():
                    break
            streams = max(1, self.engine.streams)
            rows = [entry.row for entry in window]
            by_length = self.engine.kernels == TORCH
            budget = self.pace.max_tokens
            places = choose(rows, self.causal, by_length=by_length, max_tokens=budget, streams=streams)
            entries = [window[place] for place in places]
            for entry in entries:
                del self._waiting[entry.key]
                self._under_way[entry.key] = entry
            self._busy_since[number] = time.monotonic()
            return entries

    def _gather(self) -> None:
        """Give rows that are on their way a moment. The lock is held, but for the waiting."""
        until = next(iter(self._waiting.values())).came + self.pace.gather_s
        while self._waiting and not self._closing and (left := until - time.monotonic()) > 0:
            if self.causal is None and not self._reading and not self._unread:
                return
            self._to_score.wait(left)

    def _window(self) -> list[Entry]:
        """The oldest rows that somebody still waits for; the others among them are dropped. The lock is held."""
        window: list[Entry] = []
        unwanted: list[Key] = []
        for entry in self._waiting.values():
            if len(window) == self.pace.window:
                break
            if entry.is_wanted:
                window.append(entry)
            else:
                unwanted.append(entry.key)
        for key in unwanted:
            del self._waiting[key]
        if unwanted:
            self.observer.dropped(len(unwanted))
        return window

    def _score(self, entries: Sequence[Entry]) -> None:
        """Score these rows and give them to whoever wants them."""
        began = time.monotonic()
        values, computed = self._values([entry.row for entry in entries])
        ended = time.monotonic()
        seconds = max(ended - began, 1e-6)
        tokens = sum(len(entry.row.ids) for entry in entries)
        self.observer.batch(
            rows=len(entries),
            tokens=tokens,
            computed=computed,
            seconds=seconds,
            waited=[began - entry.came for entry in entries],
        )
        done: list[Ticket] = []
        characters = 0
        with self._lock:
            for entry, value in zip(entries, values, strict=True):
                del self._under_way[entry.key]
                if isinstance(value, float):
                    self._keep(entry.key, value)
                for ticket, place, row in entry.wanted_by:
                    times = ticket.times_in(began, ended)
                    ticket.outcomes[place] = Read(row, value, times) if isinstance(value, float) else value
                    ticket.missing -= 1
                    done += [] if ticket.missing else [ticket]
                    characters += characters_of(ticket.asked[place])
            speed = characters / seconds * max(1, self.engine.streams)
            # A small batch says only that full ones are at least as fast, which ends the memory of a slow time
            if 2 * tokens >= self.pace.max_tokens or 0 < self._characters_per_s < speed:
                change = _CHANGE if self._characters_per_s else 1.0
                self._characters_per_s += change * (speed - self._characters_per_s)
        deliver(done)

    def _values(self, rows: Sequence[Row]) -> tuple[list[float | Failed], int]:
        """Of each row its score or why it has none; and the tokens that were computed."""
        try:
            batches = plan_batches(rows, max_tokens=self.pace.max_tokens, causal=self.causal)
            scores = np.empty(len(rows), np.float32)
            for batch in batches:
                scores[batch.rows] = self.engine(batch).numpy()
        except Exception as error:  # the engine's; whatever it is, rows beside the one that caused it have their scores
            if len(rows) == 1:
                why = str(error) if isinstance(error, PrefrankError) else type(error).__name__
                return [Failed(f"the model failed on this row ({why})", "failed")], 0
            alone = [self._values([row]) for row in rows]
            return [values[0] for values, _ in alone], sum(tokens for _, tokens in alone)
        values = [
            value if np.isfinite(value) else Failed(f"the model's score of this row is {value}", "failed")
            for value in scores.tolist()
        ]
        return values, sum(len(batch.ids) for batch in batches)

    def _keep(self, key: Key, value: float) -> None:
        """Remember a score in place of the one that was longest not asked for. The lock is held."""
        if self.pace.kept_scores:
            self._kept[key] = value
            if len(self._kept) > self.pace.kept_scores:
                self._kept.popitem(last=False)


_CHANGE = 0.1
"""How much of the speed so far one batch changes."""
_CLOSING_S = 0.5
"""Between two looks whether all is done, when the queue closes."""
_log = logging.getLogger(__name__)


def _give_up(tickets: Sequence[Ticket], error: Exception) -> None:
    _log.error("the queue failed with %s\n%s", type(error).__name__, place_of(error))
    for ticket in tickets:
        ticket.outcomes = [Failed("the server failed on this request; its log says why", "failed")] * len(ticket.asked)
    deliver(tickets)
