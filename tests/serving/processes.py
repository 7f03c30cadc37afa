"""Servers as processes of their own, started as a user starts them and told by signals what to do."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

STARTS_IN_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """A server that runs.

    Args:
        lines: of its standard error, so far.
    """

    popen: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return re.findall(r"https?://[\w.:\[\]]+", self.wait_for(r"[Rr]eady.*https?://"))[0]

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """The line that matches, the last of so many."""
        found: list[str] = []

        def enough() -> bool:
            found[:] = [line for line in list(self.lines) if re.search(pattern, line)]
            return len(found) >= count

        wait_until(enough, lambda: f"no {count} lines match {pattern}: {self.lines}")
        return found[count - 1]

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def ends_with(self) -> int:
        return self.popen.wait(STARTS_IN_S)


@contextmanager
def serving(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`prefrank serve` with these arguments, on a free port."""
    popen = subprocess.Popen(
        [sys.executable, "-c", "from prefrank.cli import main; main()", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )  # fmt: skip
    process = Process(popen)
    assert popen.stdout is not None
    stream = popen.stdout
    reader = Thread(target=_read, args=(stream, process.lines), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        popen.kill()
        popen.wait()
        reader.join()
        stream.close()


def _read(stream: Iterator[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))


def wait_until(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    until = time.monotonic() + STARTS_IN_S
    while not holds():
        assert time.monotonic() < until, why()
        time.sleep(0.01)
