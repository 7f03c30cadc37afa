"""API keys: read from a file or the environment, compared in constant time, each with its share of the rows."""

import hashlib
import hmac
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefrank.errors import BadInput, printable
from prefrank.io.plain_files import check_plain, read_text
from prefrank.wire.route import Refused

VARIABLE = "PREFRANK_SERVE_KEYS"
"""Of the environment: keys, between commas."""
MOST_KEYS = 10_000
LONGEST = 1_000
"""Characters of a key."""
UNSAFE = stat.S_IRWXO | stat.S_IWGRP
"""Rights of a key file that must not be there. Its group may read it: mounted secrets come so."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open a server, by the names that logs and metrics may show.

    Args:
        digests: SHA-256 of each key, so that comparing takes the same time for keys of any length.
    """

    digests: tuple[tuple[str, bytes], ...] = field(repr=False)

    @staticmethod
    def of(lines: Sequence[str]) -> "Keys":
        """Keys, each alone or after a name: `KEY` or `NAME KEY`.

        Raises:
            BadInput: a key that no header can hold, or one name or key twice.
        """
        named: dict[str, bytes] = {}
        for place, line in enumerate(lines, start=1):
            name, key = _parted(line, place)
            if name in named:
                raise BadInput(f"two API keys have the name {name}; give each its own")
            named[name] = _digest(key)
        if len(set(named.values())) < len(named):
            raise BadInput("one API key stands twice; give each client its own")
        return Keys(tuple(named.items()))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def name_of(self, authorization: str | None) -> str | None:
        """Whose a request is; None where no keys are set. All keys are compared, whichever fits.

        Args:
            authorization: the header: `Bearer KEY`.

        Raises:
            Refused: no key, or another one.
        """
        if not self.digests:
            return None
        scheme, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip())
        names = [name for name, known in self.digests if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not names:
            raise Refused("unauthorized", "the request has no valid key; send the header Authorization: Bearer KEY")
        return names[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _parted(line: str, place: int) -> tuple[str, str]:
    parts = line.split()
    if not 1 <= len(parts) <= 2:
        raise BadInput(f"API key {place} has {len(parts)} words; wanted KEY, or NAME KEY")
    key = parts[-1]
    if len(key) > LONGEST or not all("!" <= letter <= "~" for letter in key):
        raise BadInput(f"API key {place} cannot be sent in a header; wanted up to {LONGEST:,} visible ASCII characters")
    return (printable(parts[0]) if len(parts) == 2 else f"key-{place}"), key


def load_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line, `KEY` or `NAME KEY`; blank lines and those that begin with # are passed over.

    Raises:
        NotFound: there is no such file.
        BadInput: strangers may read it or its group write it, it holds no key, or one that cannot be used.
    """
    mode = stat.S_IMODE(check_plain(path, BadInput).st_mode)
    if mode & UNSAFE:
        raise BadInput(
            f"the file of API keys {path} can be read by strangers or written by its group (mode {mode:04o}); chmod 600"
            f" it, or set {VARIABLE}"
        )
    return _usable(read_text(path, BadInput), str(path))


def _usable(text: str, where: str) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    if not lines:
        raise BadInput(f"{where} holds no API key; wanted one a line, or nothing there for a server without keys")
    if len(lines) > MOST_KEYS:
        raise BadInput(f"{where} holds over {MOST_KEYS:,} API keys; wanted fewer")
    Keys.of(lines)
    return lines


class Shares:
    """How many rows each key may still ask for: its rate's worth of ten seconds at once, then its rate.

    A request is taken while anything is left and may overdraw it, so that the largest passes at any rate; the next
    waits until that is paid back. Called on one event loop.

    Args:
        rows_per_s: of each key, and of all requests together where no keys are set; None for no bound.
        clock: seconds.
    """

    def __init__(self, rows_per_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rows_per_s
        self._clock = clock
        self._left: dict[str | None, tuple[float, float]] = {}  # of each name: rows, and when that was so

    def check(self, name: str | None) -> None:
        """See, before a request is read, that its key has rows left.

        Raises:
            Refused: it has none.
        """
        if self._rate is not None and (left := self._rows(name)) <= 0:
            raise Refused(
                "limited",
                f"this key may ask for {self._rate:g} rows a second, and has asked for more; try again later",
                retry_after_s=(1 - left) / self._rate,
            )

    def take(self, name: str | None, rows: int) -> None:
        """Count a request's rows.

        Raises:
            Refused: as `check`.
        """
        if self._rate is not None:
            self.check(name)
            self._left[name] = (self._rows(name) - rows, self._clock())

    def _rows(self, name: str | None) -> float:
        rate = self._rate or 0.0
        now = self._clock()
        most = max(1.0, rate * BURST_S)
        rows, when = self._left.get(name, (most, now))
        return min(most, rows + (now - when) * rate)


BURST_S = 10.0
"""Of a key's rate that it may use at once."""
