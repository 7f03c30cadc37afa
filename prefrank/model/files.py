"""Folders that appear whole or not at all.

Everything is written into a hidden folder beside the target, flushed to disk, and renamed into place; a folder
that was there is moved aside first and removed last, so that one whole version exists at every moment.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefrank.errors import CannotWrite


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well it becomes `target`, else it is removed.

    An existing `target` is replaced as a whole, if it is empty or an older version of the same thing: one that
    shares a file name with the new folder. That keeps `save(home)` from deleting a home.

    Raises:
        CannotWrite: the disk is full, the place is not writable, or `target` holds something else.
    """
    target = target.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _check_replaceable(target, temporary)
        _sync(temporary)
        _swap(temporary, target)
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(target: Path, new: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CannotWrite(f"cannot write {target}: it is a file; give the name of a folder")
    old_names = {path.name for path in target.iterdir()}
    if old_names and not old_names & {path.name for path in new.iterdir()}:
        raise CannotWrite(f"cannot write {target}: it holds other files ({min(old_names)}); give a new or empty folder")


def _swap(new: Path, target: Path) -> None:
    old = new.with_suffix(".old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _sync_one(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or choose another place"
    return f"{error.strerror or error} ({error.filename}); choose another place"
