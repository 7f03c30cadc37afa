"""Ctrl-C, SIGTERM and SIGHUP ask the run to stop after the current step, so that what is saved is whole.

Before the first step, and where there is nothing to save, SIGTERM and SIGHUP raise as Ctrl-C does, so that anything
half-written is removed on the way out. A second signal stops at once, without saving. The error's exit code is that of
the first signal. Handlers are in place only while `train` and its tools run, and only in the main thread, since Python
allows them nowhere else.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefrank.errors import Interrupted

_ENDS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]
"""Signals that end a process from outside; Windows has no SIGHUP."""


class StopFlag:
    """Whether a signal asked to stop, and which one."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def wanted(self) -> bool:
        return self.number is not None

    def stopped(self, message: str) -> Interrupted:
        """The error to stop by: with the exit code of a shell for the signal, Ctrl-C's where another process got it."""
        error = Interrupted(message)
        error.exit_code = 128 + (self.number or signal.SIGINT)
        return error


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Inside the block, the first signal sets the flag; the second ends it, as Interrupted."""
    flag = StopFlag()
    twice = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal twice
        if flag.wanted:
            twice = True
            raise KeyboardInterrupt  # no library takes it for a fault of its own
        flag.number = number

    ends = [number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup ignores SIGHUP
    try:
        with _handled(ask, signal.SIGINT, *ends):
            yield flag
    except KeyboardInterrupt:
        if not twice:
            raise
        raise flag.stopped("stopped at once by a second signal, without saving; earlier checkpoints are kept") from None


@contextmanager
def stop_cleanly() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP act like Ctrl-C and end as Interrupted; existing handlers stay."""
    flag = StopFlag()

    def stop(number: int, frame: FrameType | None) -> None:
        flag.number = number
        raise KeyboardInterrupt

    try:
        with _handled(stop, *(number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL)):
            yield
    except KeyboardInterrupt:
        if not flag.wanted:
            raise
        name = signal.Signals(flag.number or signal.SIGTERM).name
        raise flag.stopped(f"stopped by {name} outside of the steps; nothing half written is left") from None


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
