"""Tells the C library to keep freed memory, for the whole process; only the command line does so, never the library."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM, _MMAP = -1, -3
"""glibc's names for mallopt: when to give memory back, and from which size on to ask the system for each block."""


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside the block, memory that is freed stays with the process, to be used again.

    Without it glibc gives large blocks back, and takes them again in the next pass, page by page and zeroed: 5 % of a
    step on a CPU. Elsewhere than on glibc it does nothing.
    """
    glibc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if glibc is None:
        yield
        return
    for name in (_MMAP, _TRIM):
        glibc.mallopt(name, 2**31 - 1)
    try:
        yield
    finally:
        for name in (_MMAP, _TRIM):  # where glibc's own rule ends up
            glibc.mallopt(name, 2**25)
        glibc.malloc_trim(0)
