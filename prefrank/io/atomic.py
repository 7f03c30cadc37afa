"""Files and folders that appear whole or not at all.

Everything is written into a hidden file or folder beside the target, flushed to disk, and renamed into place; a folder
that was there is moved aside first and removed last, so that one whole version exists at every moment.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from prefrank.errors import CannotWrite

WINDOWS = os.name == "nt"


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write; when the block ends well it becomes `target`, else it is removed.

    Raises:
        CannotWrite: the disk is full, the place is not writable, or `target` is a folder or device.
    """
    real = target.resolve()
    try:
        with _beside(target) as temporary:
            temporary.open("ab").close()  # what cannot be written is said before the work
            yield temporary
            _sync_one(temporary)
            temporary.replace(real)
            _sync_one(real.parent)
    except CannotWrite:
        raise
    except OSError as error:
        reason = _reason(error) if real.parent.is_dir() else f"there is no folder {real.parent}; make it first"
        raise CannotWrite(f"cannot write {target}: {reason}") from error


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name for a file beside the one that is meant; what is there afterwards is removed."""
    real = target.resolve()
    if real.exists() and not real.is_file():
        raise CannotWrite(f"cannot write {target}: it is no file; give the name of a file")
    temporary = real.with_name(f".{real.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_file(target: Path, content: bytes) -> None:
    """A file's content in one move; its folder is made where there is none.

    Raises:
        CannotWrite: as `atomic_file`.
    """
    _make_folder(target)
    with atomic_file(target) as temporary:
        temporary.write_bytes(content)


def check_writable(target: Path) -> None:
    """See that `write_file` can write there, making the folder; what stands there stays.

    Raises:
        CannotWrite: it cannot.
    """
    _make_folder(target)
    try:
        with _beside(target) as temporary:
            temporary.open("ab").close()
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well it becomes `target`, else it is removed.

    An existing `target` is replaced as a whole, if nothing is lost by it but an older checkpoint: any file in it that
    is neither replaced nor a checkpoint's own, such as somebody's README, is an error and stays.

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
    except OSError as error:
        cause = error.__cause__ if isinstance(error, CannotWrite) else error
        if not isinstance(cause, OSError):
            raise
        # of a file inside, too: its temporary folder says nothing
        raise CannotWrite(f"cannot write {target}: {_reason(cause)}") from cause
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


_CHECKPOINT_FILES = (
    *("config.json", "generation_config.json", "prefrank.json", "model*.safetensors", "model*.json"),
    *("pytorch_model*", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("adapter", "adapter_config.json", "adapter_model.safetensors"),
    *("quantised.safetensors", "spm.model", "spiece.model", "sentencepiece*.model", "chat_template.jinja", "state"),
    "additional_chat_templates",
)
"""What a checkpoint may have held that its successor does not, and so may go."""


def _check_replaceable(target: Path, new: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CannotWrite(f"cannot write {target}: it is a file; give the name of a folder")
    gone = {path.name for path in target.iterdir()} - {path.name for path in new.iterdir()}
    foreign = sorted(name for name in gone if not any(fnmatch(name, pattern) for pattern in _CHECKPOINT_FILES))
    if foreign:
        raise CannotWrite(f"cannot write {target}: it holds other files ({foreign[0]}); give a new or empty folder")


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
