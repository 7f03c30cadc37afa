"""Files as they are opened: only plain ones, and no more of them than memory is meant to hold.

A FIFO would wait for a writer that never comes, a device may never end: the one stream is "-", standard input.
"""

import os
import stat
from pathlib import Path

from prefrank.errors import BadInput, NotFound
from prefrank.limits import limit, past


def check_plain(path: Path, error: type[BadInput]) -> os.stat_result:
    """See that a path is a plain file, or a link to one; returns what the system says of it.

    Raises:
        NotFound: there is nothing.
        error: a folder, FIFO, socket or device, or a name that the system does not take.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except (OSError, ValueError) as reason:  # the second for a name with a zero in it
        raise error(f"{path} cannot be read: {_words(reason)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{path} is {_kind(status.st_mode)}; wanted a plain file")
    return status


def read_bytes(path: Path, error: type[BadInput], bound: str = "json_bytes") -> bytes:
    """The content of a small file.

    Args:
        bound: the name of its limit in `prefrank.limits`.

    Raises:
        NotFound: there is no such file.
        error: it is no plain file, is too large, or may not be read.
    """
    size = check_plain(path, error).st_size
    if size > limit(bound):
        raise error(f"{path} has {size:,} bytes, {past(bound)}")
    try:
        return path.read_bytes()
    except OSError as reason:
        raise error(f"{path} cannot be read: {_words(reason)}") from None


def read_text(path: Path, error: type[BadInput], bound: str = "json_bytes") -> str:
    """The text of a small file in UTF-8.

    Raises:
        NotFound, error: as `read_bytes`; also bytes that are not UTF-8.
    """
    try:
        return read_bytes(path, error, bound).decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path} is not UTF-8 text ({reason.reason} at byte {reason.start}); save it as UTF-8") from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _words(reason: Exception) -> str:
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
