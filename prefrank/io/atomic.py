"""Files and folders that appear whole or not at all.

Everything is written inside a hidden folder beside the target, flushed to disk, and renamed into place. A folder that
was there changes places with the new one in one step where the system can (Linux); elsewhere it is moved aside first,
so that one whole version exists at every moment.

The hidden folder holds a marker that says what it is for and who made it. Nothing without that marker is ever touched:
`recover` gives what a killed process left its name, or removes it.
"""

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from prefrank.errors import BadInput, CannotWrite, PrefrankError
from prefrank.io.json_files import read_fields, read_object

WINDOWS = os.name == "nt"
MARKER = "made-by-prefrank.json"
_HIDDEN = re.compile(r"\.prefrank-[0-9a-f]{8}\.tmp")
_NEW, _OLD = "new", "old"


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write; when the block ends well it becomes `target`, else it is removed.

    A file that is replaced leaves its permissions to the new one.

    Raises:
        CannotWrite: the disk is full, the place is not writable, or `target` is a folder, device, FIFO or link.
    """
    try:
        with _hidden(target) as place:
            before = _check_file(target)
            temporary = place / _NEW
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
        found = target.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return found
    if stat.S_ISLNK(found.st_mode):
        raise CannotWrite(f"cannot write {target}: it is a link; give the name of the file itself")
    raise CannotWrite(f"cannot write {target}: it is no file; give the name of a file")


@contextmanager
def _hidden(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, with its marker; gone when the block ends.

    Those that killed processes left there for the same target go first. One of a folder that has no name any more is
    left to `recover`.
    """
    for left in target.parent.glob(".prefrank-*.tmp"):
        if _target_of(left, unsure=False) == target and (target.exists() or not (left / _OLD).exists()):
            _remove(left)
    place = target.parent / f".prefrank-{secrets.token_hex(4)}.tmp"
    place.mkdir()
    try:
        with (place / MARKER).open("w", encoding="utf-8") as marker:
            _locked(marker.fileno())
            json.dump({"target": target.name}, marker)
            marker.flush()
            yield place
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    """What we put into a hidden folder, the marker last, so that what a kill leaves of it is still known as ours."""
    for name in (_NEW, _OLD):
        inner = place / name
        inner.unlink(missing_ok=True) if inner.is_file() else shutil.rmtree(inner, ignore_errors=True)
    (place / MARKER).unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a new folder beside a path, which is gone when the block ends; what a kill leaves of it `recover` removes.

    Raises:
        CannotWrite: the place is not writable.
    """
    try:
        with _hidden(beside) as place:
            (place / _NEW).mkdir()
            yield place / _NEW
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
            with _hidden(target):
                pass
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error


def check_outputs(
    outputs: Mapping[str, Path | None], inputs: Iterable[Path], *, folders: Mapping[str, Path | None] | None = None
) -> None:
    """See, before any work, that what a command will write takes the place of nothing that it reads or writes besides.

    Args:
        outputs: the files, by the names that the user gave them under; None for those not asked for, "-" for a stream.
        inputs: files and folders that are read; what is none, such as a name on the hub, is left out.
        folders: outputs that are folders.

    Raises:
        BadInput: an output is an input under any name, stands in an input folder or holds an input, is another output
            or stands in it, is a link, device, FIFO or socket, or is a folder where a file is meant and the reverse.
    """
    read = [(path, _place(path)) for path in inputs if _stat(path)]
    taken: dict[str, tuple[str, Path]] = {}
    files = {option: path for option, path in outputs.items() if path is not None and str(path) != "-"}
    kept = {option: path for option, path in (folders or {}).items() if path is not None}
    for option, path in (files | kept).items():
        where = f"{option}: {path}"
        _check_kind(where, path, folder=option in kept)
        place = _place(path)
        for source, own in read:
            if place == own or _holds(source, path):
                raise BadInput(f"{where} is what is read ({source}); give another name, and rename it afterwards")
            if place.is_relative_to(own):
                raise BadInput(f"{where} lies in the folder {source}, which is read; choose a place outside it")
            if own.is_relative_to(place):
                raise BadInput(f"{where} holds {source}, which is read; choose another folder")
        for other, (name, own) in taken.items():
            inside = name not in kept and place.is_relative_to(own)
            around = option not in kept and own.is_relative_to(place)
            if place == own or inside or around or _same(path, Path(other)):
                raise BadInput(f"{where} is where {name} goes too; give each a file of its own")
        taken[str(path)] = option, place


def _check_kind(where: str, path: Path, *, folder: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # too long a name, one with a zero in it, a folder that is not ours to see
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadInput(f"{where} cannot be written: {reason}; give another name") from None
    if stat.S_ISLNK(mode):
        raise BadInput(f"{where} is a link; give the name of the {'folder' if folder else 'file'} itself")
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        came = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device, FIFO or socket"
        raise BadInput(f"{where} is {came}; give the name of a {'folder' if folder else 'file'}")


def _place(path: Path) -> Path:
    """Where a path leads, in one spelling."""
    return Path(os.path.normcase(os.path.realpath(path)))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, as hard links and names that differ in case only can be."""
    here, there = _stat(one), _stat(other)
    return here is not None and there is not None and os.path.samestat(here, there)


_LOOKED_AT = 10_000
"""Files of an input folder that are compared with an output that exists: data sets and models have fewer."""


def _holds(source: Path, output: Path) -> bool:
    """Whether an input is the output or, a folder, has it under another name: a link in it leads there."""
    if _same(source, output):
        return True
    if not (output.is_file() and source.is_dir()):
        return False
    return any(_same(inner, output) for inner in islice(source.rglob("*"), _LOOKED_AT))


@contextmanager
def folder_for(target: Path, *, keep: bool = True) -> Iterator[None]:
    """Make the folders that a file goes into, where there are none; those that were made go where the block fails.

    Args:
        keep: whether they stay where it ends well.

    Raises:
        CannotWrite: they cannot be made.
    """
    missing = [one for one in target.absolute().parents if not os.path.lexists(one)]
    well = False
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(f"cannot write {target}: {_reason(error)}") from error
        yield
        well = True
    finally:
        for one in [] if well and keep else missing:
            with suppress(OSError):  # never made, or not empty
                one.rmdir()


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
        with _hidden(target) as place:
            (place / _NEW).mkdir()
            yield place / _NEW
            check_replaceable(target)
            _sync(place / _NEW)
            _swap(place, target)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, CannotWrite) else error
        if not isinstance(cause, OSError):
            raise
        # of a file inside, too: its temporary folder says nothing
        raise CannotWrite(f"cannot write {target}: {_reason(cause)}") from cause


_OWN_FILES = re.compile(
    r"config\.json|generation_config\.json|prefrank\.json|quantised\.safetensors"
    r"|(?:model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)|(?:model\.safetensors|pytorch_model\.bin)\.index\.json"
    r"|adapter_config\.json|adapter_model\.(?:safetensors|bin)"
    r"|tokenizer\.json|tokenizer\.model|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(?:txt|json)|merges\.txt|spm\.model|spiece\.model|sentencepiece(?:\.bpe)?\.model"
    r"|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja"
)
"""What a checkpoint may have held that its successor does not, and so may go."""
_RECORD, _STATE = "prefrank.json", "state/files.json"
"""The marker of a checkpoint of ours, and the list of what is in it to resume from."""


def foreign_files(folder: Path) -> list[str]:
    """What a checkpoint's folder holds, however deep, that no checkpoint has: somebody's own files.

    Of a folder that is no checkpoint of ours, everything.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not _is_folder(path)]
    links = [name for name in names if (folder / name).is_symlink()]
    if links or not (folder / _RECORD).is_file():
        return links or names
    try:
        listed = {_STATE, *read_object(folder / _STATE)} if (folder / _STATE).is_file() else set()
    except PrefrankError:  # torn
        listed = {_STATE, "state/state.pt"}
    left = {place.name for place in folder.glob(".prefrank-*.tmp") if _target_of(place)}  # by a killed process
    own = (name for name in names if name in listed or _OWN_FILES.fullmatch(name.removeprefix("adapter/")))
    return sorted({name for name in names if name.partition("/")[0] not in left} - set(own))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def check_replaceable(target: Path) -> None:
    """See that no file but those of a checkpoint of ours goes where a folder is replaced or removed.

    Raises:
        CannotWrite: it is a file or a link, or holds something else.
    """
    if target.is_symlink():
        raise CannotWrite(f"cannot write {target}: it is a link; give the name of the folder itself")
    if not target.exists():
        return
    if not target.is_dir():
        raise CannotWrite(f"cannot write {target}: it is a file; give the name of a folder")
    if foreign := foreign_files(target):
        raise CannotWrite(f"cannot write {target}: it holds other files ({foreign[0]}); give a new or empty folder")


def _swap(place: Path, target: Path) -> None:
    """The new folder takes the target's place; what was there is left in the hidden folder."""
    new, old = place / _NEW, place / _OLD
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


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names changed places in one step, which Linux can on most file systems."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if library is None or not hasattr(library, "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return library.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def recover(folder: Path, *, is_whole: Callable[[Path], bool]) -> None:
    """Name or remove what killed processes left in a folder between writing something and naming it.

    Only hidden folders with our marker, whose maker is gone, are looked at. A whole folder whose target is missing
    gets its name: the new one if `is_whole` says so, else the one that it was to replace.
    """
    for place in sorted(folder.glob(".prefrank-*.tmp")):
        target = _target_of(place)
        if target is None:
            continue
        new, old = place / _NEW, place / _OLD
        if not target.exists() and not target.is_symlink():
            if new.is_dir() and is_whole(new):
                new.rename(target)
            elif old.is_dir():
                old.rename(target)
        _remove(place)


def _target_of(place: Path, *, unsure: bool = True) -> Path | None:
    """What a hidden folder was for; None for one that is not ours, or whose maker still works.

    Args:
        unsure: whether one counts as left where files are not locked, so that nobody knows.
    """
    if not _HIDDEN.fullmatch(place.name) or not _is_folder(place):
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
