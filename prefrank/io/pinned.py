"""Reads a folder as of one version, even if another process replaces it meanwhile.

A folder that is replaced as a whole (`io.atomic`) is another folder under the same name; one that is copied into is the
same with other files. Both show in what the system says of it, which is looked at before and after.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prefrank.errors import BadModel, PrefrankError

Value = TypeVar("Value")
_TRIES = 10
_WAIT_S = 0.05
_LATELY_S = 3.0
_INNER = ("additional_chat_templates", "adapter")
"""Folders in a model's folder that belong to it; another, such as a program's logs, may change."""
_State = tuple[tuple[str, int, int, int], ...] | None


def read_as_one(folder: Path, read: Callable[[], Value]) -> Value:
    """What `read` makes of a folder's files, read again where the folder changed meanwhile.

    Raises:
        BadModel: it changed at every try.
        PrefrankError: as `read`, of a folder that did not change.
    """
    for number in range(_TRIES):
        before = _state(folder)
        try:
            value = read()
        except (PrefrankError, OSError):
            same = _state(folder) == before
            if number == _TRIES - 1 or (same and (before is not None or number)):  # a folder may be absent for a moment
                raise
        else:
            if _state(folder) == before:
                return value
        time.sleep(_WAIT_S * number)
    raise BadModel(f"{folder} changed at each of {_TRIES} tries to read it; wait until nobody writes there")


def changed_lately(folder: Path) -> bool:
    """Whether a file of a folder was written or put there in the last seconds, so that more may follow."""
    try:
        newest = max((entry.stat().st_ctime for entry in os.scandir(folder)), default=0.0)
    except OSError:
        return True
    return abs(time.time() - newest) < _LATELY_S


def _state(folder: Path) -> _State:
    """What tells one version of a folder's files from another; None where there is no folder."""
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
        states = [(".", os.stat(folder).st_ino, 0, 0)]
        for entry in inside:
            facts = entry.stat()
            if entry.is_file():
                states.append((entry.name, facts.st_ino, facts.st_size, facts.st_mtime_ns))
            elif entry.name in _INNER:
                states += [(f"{entry.name}/{inner[0]}", *inner[1:]) for inner in _state(Path(entry.path)) or ()]
    except OSError:
        return None
    return tuple(states)
