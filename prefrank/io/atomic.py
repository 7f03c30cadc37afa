"""Files and folders that appear whole or not at all.

Everything is written inside a hidden folder beside the target (`io.hidden`), flushed to disk, and renamed into place.
A folder that was there changes places with the new one in one step where the system can (Linux); elsewhere it is moved
aside first, so that one whole version exists at every moment. `recover` gives what a killed process left its name, or
removes it.
"""

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefrank.errors import CannotWrite
from prefrank.io.hidden import NEW, OLD, hidden_folder, remove_hidden, target_of
from prefrank.io.outputs import check_replaceable

WINDOWS = os.name == "nt"


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write; when the block ends well it becomes `target`, else it is removed.

    A file that is replaced leaves its permissions to the new one.

    Raises:
        CannotWrite: the disk is full, the place is not writable, or `target` is a folder, device, FIFO or link.
    """
    try:
        with hidden_folder(target) as place:
            before = _check_file(target)
            temporary = place / NEW
            temporary.open("xb").close()  # what cannot be written is said before the work
            yield temporary
            if before is not None:
                temporary.chmod(stat.S_IMODE(before.st_mode))
            _sync_one(temporary)
            _check_file(target)
            temporary.replace(target)
            _sync_one(target.parent)
    except CannotWrite:
        raise
    except OSError as error:
        parent = target.parent
        reason = _reason(error) if parent.is_dir() else f"there is no folder {parent.absolute()}; make it first"
        raise CannotWrite(f"cannot write {target}: {reason}") from error


def _check_file(target: Path) -> os.stat_result | None:
    """What the system says of a file that is to be replaced; None where there is none."""
    try:
        status = target.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(status.st_mode):
        return status
    if stat.S_ISLNK(status.st_mode):
        raise CannotWrite(f"cannot write {target}: it is a link; give the name of the file itself")
    raise CannotWrite(f"cannot write {target}: it is not a file; give the name of a file")


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a new folder beside a path, which is gone when the block ends; what a kill leaves of it `recover` removes.

    Raises:
        CannotWrite: the place is not writable.
    """
    try:
        with hidden_folder(beside) as place:
            (place / NEW).mkdir()
            yield place / NEW
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {beside}: {_reason(error)}") from error


def write_file(target: Path, content: bytes) -> None:
    """A file's content in one move; its folder is made where there is none.

    Raises:
        CannotWrite: as `atomic_file`.
    """
    with folder_for(target), atomic_file(target) as temporary:
        temporary.write_bytes(content)


def check_writable(target: Path) -> None:
    """See that `write_file` can write there; nothing is made, and what stands there stays.

    Raises:
        CannotWrite: it cannot.
    """
    try:
        with folder_for(target, keep=False):
            _check_file(target)
            with hidden_folder(target):
                pass
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error


@contextmanager
def folder_for(target: Path, *, keep: bool = True) -> Iterator[None]:
    """Make the folders that a file goes into, where there are none; those that were made go where the block fails.

    Args:
        keep: whether they stay where it ends well.

    Raises:
        CannotWrite: they cannot be made.
    """
    missing = [parent for parent in target.absolute().parents if not os.path.lexists(parent)]
    well = False
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error
        yield
        well = True
    finally:
        for parent in [] if well and keep else missing:
            with suppress(OSError):  # never made, or not empty
                parent.rmdir()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well it becomes `target`, else it is removed.

    An existing `target` is replaced as a whole, if nothing is lost by it but an older checkpoint: any file in it that
    is not a checkpoint's own, such as somebody's README, is an error and stays.

    Raises:
        CannotWrite: the disk is full, the place is not writable, or `target` is a link or holds something else.
    """
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hidden_folder(target) as place:
            (place / NEW).mkdir()
            yield place / NEW
            check_replaceable(target)
            _sync(place / NEW)
            _swap(place, target)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, CannotWrite) else error
        if not isinstance(cause, OSError):
            raise
        # of a file inside, too: its temporary folder says nothing
        raise CannotWrite(f"cannot write {target}: {_reason(cause)}") from cause


def _swap(place: Path, target: Path) -> None:
    """The new folder takes the target's place; what was there is left in the hidden folder."""
    new, old = place / NEW, place / OLD
    if not (target.exists() and _exchanged(new, target)):
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    _sync_one(target.parent)


def _exchanged(first: Path, second: Path) -> bool:
    """Whether two names changed places in one step, which Linux can on most file systems."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if library is None or not hasattr(library, "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return library.renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def recover(folder: Path, *, is_whole: Callable[[Path], bool]) -> None:
    """Name or remove what killed processes left in a folder between writing something and naming it.

    Only hidden folders with our marker, whose maker is gone, are looked at. A whole folder whose target is missing
    gets its name: the new one if `is_whole` says so, else the one that it was to replace.
    """
    for place in sorted(folder.glob(".prefrank-*.tmp")):
        target = target_of(place)
        if target is None:
            continue
        new, old = place / NEW, place / OLD
        if not target.exists() and not target.is_symlink():
            if new.is_dir() and is_whole(new):
                new.rename(target)
            elif old.is_dir():
                old.rename(target)
        remove_hidden(place)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    if WINDOWS and path.is_dir():
        return  # Windows opens no folder, and flushes what was opened for writing only
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or choose another place"
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}; choose another place"
