"""Checks, before anything is written, that no output replaces an input, a link or somebody's own files."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from prefrank.errors import BadInput, CannotWrite, PrefrankError
from prefrank.io.hidden import is_folder, target_of
from prefrank.io.json_files import read_object


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


def _same(first: Path, second: Path) -> bool:
    """Whether two names are of one file, as hard links and names that differ in case only can be."""
    here, there = _stat(first), _stat(second)
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

    Of a folder that is not a checkpoint of ours, everything.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not is_folder(path)]
    links = [name for name in names if (folder / name).is_symlink()]
    if links or not (folder / _RECORD).is_file():
        return links or names
    try:
        listed = {_STATE, *read_object(folder / _STATE)} if (folder / _STATE).is_file() else set()
    except PrefrankError:  # torn
        listed = {_STATE, "state/state.pt"}
    left = {place.name for place in folder.glob(".prefrank-*.tmp") if target_of(place)}  # by a killed process
    own = (name for name in names if name in listed or _OWN_FILES.fullmatch(name.removeprefix("adapter/")))
    return sorted({name for name in names if name.partition("/")[0] not in left} - set(own))


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
