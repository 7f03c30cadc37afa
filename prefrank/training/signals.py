"""Ctrl-C, SIGTERM and SIGHUP ask the run to stop after the step under way, so that what is saved is whole.

Before the first step, and where nothing is to be saved, the others stop as Ctrl-C does: by an error, so that whatever
was half written is removed on the way out.

Surprising: a second signal stops at once, without saving. Outside the main thread, where Python allows no handlers,
nothing is caught.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefrank.errors import Interrupted

_ENDS = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
"""What ends a process from outside: a request to, and the end of its terminal, which Windows does not tell."""


class StopFlag:
    """Whether somebody asked to stop."""

    wanted = False


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Inside the block, the first signal sets the flag; the second is what it was before the block, or Ctrl-C."""
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        if flag.wanted:
            if callable(before := handlers[number]):
                before(number, frame)
            raise KeyboardInterrupt
        flag.wanted = True

    ends = [number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup ignores SIGHUP
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *ends)}
    with _handled(ask, *handlers):
        yield flag


@contextmanager
def stop_cleanly() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP are what Ctrl-C is, and end as Interrupted; handlers of others are left."""
    told = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = number
        raise KeyboardInterrupt  # no library takes it for a fault of its own

    try:
        with _handled(stop, *(number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL)):
            yield
    except KeyboardInterrupt:
        if not told:
            raise
        name = signal.Signals(told).name
        raise Interrupted(f"stopped by {name} outside of the steps; nothing half written is left") from None


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
