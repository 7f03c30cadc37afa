"""Which server is asked next and after which wait, for one request: plain values and no connection.

A round asks every server once, the next one at once where one fails. Between two rounds there is a wait, drawn at
random from zero to a bound that doubles (full jitter), so that not all clients of a server come back at one moment.
Where servers ask for a wait (Retry-After), the least that one of them asks for is kept, up to a bound.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from prefrank.errors import NotFound
from prefrank.scoring.exchange import Answer, address, retry_after
from prefrank.serving.client.client_options import ClientOptions

RESTS_S = 2.0
"""A server that failed is asked last for so long, or for as long as it asked for."""


class Replicas:
    """Servers of one model, each asked first in its turn; those that failed lately are asked last.

    Args:
        urls: at least one.
        clock: seconds that only grow.
    """

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._urls = tuple(urls)
        self._clock = clock
        self._turn = 0
        self._rests_until: dict[str, float] = {}

    def order(self) -> list[str]:
        """The servers in the order they are to be asked in now."""
        first = self._turn % len(self._urls)
        self._turn += 1
        turns = self._urls[first:] + self._urls[:first]
        now = self._clock()
        return sorted(turns, key=lambda url: self._rests_until.get(url, 0.0) > now)

    def failed(self, url: str, seconds: float) -> None:
        """Ask it last for so long."""
        self._rests_until[url] = self._clock() + seconds

    def answered(self, url: str) -> None:
        """Ask it in its turn again."""
        self._rests_until.pop(url, None)


@dataclass(frozen=True, slots=True)
class Try:
    """Whom to ask, after a wait of so many seconds, and for how many seconds."""

    url: str
    wait_s: float
    timeout_s: float


class Tries:
    """The tries of one request.

    Args:
        ends: on the clock, when the call's time is over.
        draw: a random number from 0 to 1.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        replicas: Replicas,
        options: ClientOptions,
        *,
        ends: float,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._options = options
        self._ends = ends
        self._draw = draw
        self._clock = clock
        self._began = clock()
        self._round = -1
        self._waiting: list[str] = []
        self._asked_for: list[float] = []
        self._what = "was not asked"
        self._url = ""
        self._number = 0

    def next(self) -> Try:
        """The next try.

        Raises:
            NotFound: there is none: no answer in all of them, or no time left for another.
        """
        wait = 0.0
        if not self._waiting:
            self._round += 1
            if self._round >= self._options.tries:
                raise self._over("")
            wait = self._wait() if self._round else 0.0
            self._waiting, self._asked_for = self._replicas.order(), []
        left = self._ends - self._clock() - wait
        if left <= 0:
            raise self._over(f", and {self._options.deadline_s:g} s are over for the whole call (deadline_s)")
        self._url = self._waiting.pop(0)
        self._number += 1
        return Try(self._url, wait, min(self._options.timeout_s, left))

    def failed(self, what: str, asked_for: float | None = None) -> None:
        """Say how the last try failed.

        Args:
            what: it did, such as "gave no answer".
            asked_for: seconds that the server wants to be left alone.
        """
        longest = self._options.longest_wait_s
        too_long = asked_for is not None and asked_for > longest
        self._what = f"{what} (it asks for a wait of {asked_for:g} s; {longest:g} s is the most)" if too_long else what
        self._asked_for.append(asked_for or 0.0)
        self._replicas.failed(self._url, min(asked_for or RESTS_S, self._options.longest_wait_s))

    def answered(self) -> None:
        """Say that the last try was answered."""
        self._replicas.answered(self._url)

    def _wait(self) -> float:
        """Seconds before the next round."""
        bound = min(self._options.wait_s * 2.0 ** min(self._round - 1, 60), self._options.longest_wait_s)
        jitter = self._draw() * bound
        asked = min(self._asked_for, default=0.0)
        if not asked:
            return jitter
        return min(asked + min(jitter, self._options.wait_s), self._options.longest_wait_s)

    def _over(self, why: str) -> NotFound:
        tried = f"tried {self._number} times in {self._clock() - self._began:.3g} s"
        return NotFound(
            f"{address(self._url) or 'the server'} {self._what}; {tried}{why}."
            " Is it up, and not asked for too much at once?"
        )


def asked_wait(answer: Answer) -> float | None:
    """The seconds from now in a Retry-After header, which holds seconds or a date; None for neither.

    A date is read against the answer's own, where it has one: the two clocks need not agree.
    """
    seconds = retry_after(answer)
    if seconds is not None:
        return seconds
    until = _when(answer.headers.get("retry-after"))
    if until is None:
        return None
    now = _when(answer.headers.get("date"))
    return max(until - (time.time() if now is None else now), 0.0)


def _when(date: str | None) -> float | None:
    """Seconds since 1970 of a date of HTTP."""
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
