"""transformers without its progress bars, advice and load reports, for as long as a block of ours runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class _Quiet:
    """Blocks of `quiet_transformers` that this process is in, and what was set before the first."""

    def __init__(self) -> None:
        self.lock, self.blocks, self.level, self.bars = Lock(), 0, 0, True


_QUIET: dict[int, _Quiet] = {}
"""By process: a fork has none of its parent's threads, one of which may hold the lock."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, advice and load reports, which we check ourselves.

    transformers has one level for the whole program and no other way to say this. What was set before is set again when
    the last of the threads that are in such a block leaves it.
    """
    from transformers.utils import logging

    quiet = _QUIET.setdefault(os.getpid(), _Quiet())
    with quiet.lock:
        quiet.blocks += 1
        if quiet.blocks == 1:
            quiet.level, quiet.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
            logging.set_verbosity_error()
            logging.disable_progress_bar()
    try:
        yield
    finally:
        with quiet.lock:
            quiet.blocks -= 1
            if not quiet.blocks:
                logging.set_verbosity(quiet.level)
                if quiet.bars:
                    logging.enable_progress_bar()
