"""Ctrl-C and SIGTERM ask the run to stop after the step under way, so that what is saved is whole.

Surprising: a second signal stops at once, without saving. Outside the main thread, where Python allows no handlers,
nothing is caught.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether somebody asked to stop."""

    wanted = False


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Inside the block, the first SIGINT or SIGTERM sets the flag; the second raises KeyboardInterrupt."""
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        if flag.wanted:
            raise KeyboardInterrupt
        flag.wanted = True

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
