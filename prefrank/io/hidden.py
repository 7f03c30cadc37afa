"""The hidden temporary folder in which something is written before it gets its name.

It holds a marker that says what it is for, and is locked for as long as its maker works. Nothing without that marker
is ever touched.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefrank.errors import PrefrankError
from prefrank.io.json_files import read_fields

MARKER = "made-by-prefrank.json"
_NAME = re.compile(r"\.prefrank-[0-9a-f]{8}\.tmp")
NEW, OLD = "new", "old"


@contextmanager
def hidden_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, with its marker; gone when the block ends.

    Those that killed processes left there for the same target go first. One of a folder that has no name any more is
    left to `recover`.
    """
    for left in target.parent.glob(".prefrank-*.tmp"):
        if target_of(left, unsure=False) == target and (target.exists() or not (left / OLD).exists()):
            remove_hidden(left)
    place = target.parent / f".prefrank-{secrets.token_hex(4)}.tmp"
    place.mkdir()
    try:
        with (place / MARKER).open("w", encoding="utf-8") as marker:
            _locked(marker.fileno())
            json.dump({"target": target.name}, marker)
            marker.flush()
            yield place
    finally:
        remove_hidden(place)


def remove_hidden(place: Path) -> None:
    """What we put into a hidden folder, the marker last, so that what a kill leaves of it is still known as ours."""
    for name in (NEW, OLD):
        inner = place / name
        inner.unlink(missing_ok=True) if inner.is_file() else shutil.rmtree(inner, ignore_errors=True)
    (place / MARKER).unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()


def target_of(place: Path, *, unsure: bool = True) -> Path | None:
    """What a hidden folder was for; None for one that is not ours, or whose maker still works.

    Args:
        unsure: whether one counts as left where files are not locked, so that nobody knows.
    """
    if not _NAME.fullmatch(place.name) or not is_folder(place):
        return None
    try:
        name = read_fields(place / MARKER).text("target")
        with (place / MARKER).open("rb") as marker:
            in_use = not _locked(marker.fileno(), unsure=unsure)
    except (PrefrankError, OSError):
        return None
    return None if in_use or Path(name).name != name or name in ("", "..") else place.parent / name


def _locked(descriptor: int, *, unsure: bool = True) -> bool:
    """Whether a file that is open here is now locked for as long as it is open; the system frees it with its process.

    Args:
        unsure: the answer where files are not locked this way (Windows).
    """
    try:
        import fcntl
    except ImportError:
        return unsure
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return unsure
    return True


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
