"""One process at a time in a folder: a lock that the system frees with its process, however that ends.

`run.lock` stays in the folder and says who holds it, or held it last; whether somebody does, the system knows, so that
what a killed process or another machine left there keeps nobody out. Where a file system has no locks, there is none.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from prefrank.errors import BadInput, CannotWrite, PrefrankError
from prefrank.io.json_files import Fields, parse_json
from prefrank.io.plain_files import read_bytes

FILE = "run.lock"
_OPENING = b'{"prefrank": "lock"'


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a folder, which is made where there is none; yields what writes into the lock who holds it.

    A folder and a lock that were made for it go with it, if nothing else came into the folder.

    Raises:
        CannotWrite: another process holds it, it cannot be written, or it holds somebody's own `run.lock`.
    """
    path = folder / FILE
    missing = [parent for parent in (folder, *folder.absolute().parents) if not parent.exists()]
    try:
        before = _names_in(folder)
        lock = _take(path)
        try:
            yield lambda: _sign(path)
        finally:
            if FILE not in before and set(os.listdir(folder)) - before <= {FILE}:
                path.unlink(missing_ok=True)
            lock.release()
    finally:
        for parent in missing:
            with suppress(OSError):  # what is not empty stays
                parent.rmdir()


def _names_in(folder: Path) -> set[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return set(os.listdir(folder))
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror}; choose another place") from error


def _take(path: Path) -> BaseFileLock:
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        _check_own(path)
        lock.acquire()
    except Timeout:
        raise CannotWrite(
            f"{path.parent} is in use: {_who(path)}; wait until that ends, or choose another folder"
        ) from None
    except NotImplementedError:  # a file system without locks
        pass
    except OSError as error:
        if isinstance(error, CannotWrite):
            raise
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another place") from error
    return lock


def _sign(path: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"prefrank": "lock", "host": socket.gethostname(), "pid": os.getpid(), "since": now}
    try:
        path.write_bytes(json.dumps(holder).encode())
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another place") from error


def _check_own(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or path.read_bytes()[: len(_OPENING)] not in (b"", _OPENING):
        raise CannotWrite(f"{path} is not a lock of prefrank's; move it away, or choose another folder")


def _who(path: Path) -> str:
    try:
        holder = Fields(parse_json(read_bytes(path, BadInput), path, BadInput), str(path), error=BadInput)
        return f"process {holder.integer('pid')} on {holder.text('host')} holds it since {holder.text('since')}"
    except (PrefrankError, AttributeError):  # not written yet
        return "another process holds it"
