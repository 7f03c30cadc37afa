"""Tensors of a checkpoint folder, whichever of transformers' four layouts it has, or our own quantized one.

One file or several with an index, safetensors or pickled (`pytorch_model.bin`, read with `weights_only=True`, so no
code in it runs). Files of more than 64 MB are mapped, not read: a tensor's pages come into memory when it is first
used, processes that load the same folder share them, and writing to a tensor (training) makes private pages and never
touches the file. Smaller ones are read, whatever becomes of the file then.

Surprising: the mapping outlives the file's name. A folder may be replaced or deleted while it is loaded; everything
prefrank writes goes to a new file that is then renamed. A program that overwrites the bytes of the very file, where it
is mapped, changes the loaded weights, and one that cuts it short ends this process (SIGBUS).
"""

import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load as from_bytes
from torch import Tensor

from prefrank.errors import BadModel, NotFound, short
from prefrank.io.atomic import atomic_file
from prefrank.io.json_files import Fields, read_fields
from prefrank.io.plain_files import check_plain
from prefrank.limits import limit, past
from prefrank.model.hub import check_gguf
from prefrank.model.mapping import are_mapped

SINGLE = ("model.safetensors", "pytorch_model.bin")
QUANTISED = "quantised.safetensors"
"""A name of its own, so that transformers, which ignores methods of quantization it does not know and would take the
integers for weights, finds none and says so."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
"""Types of stored weights that stand for themselves, without scales."""
NARROW = (torch.bfloat16, torch.float16)
"""Of `FLOATS`, those that float32 holds exactly and torch computes with."""
ALIGNMENT = 64
"""Of tensors, in bytes, as torch allocates them: MKL adds up in another order where they lie otherwise."""
_PASSING_BYTES = 1 << 26
_CONVERTED_AT_ONCE = 1 << 20
_MAPPED_BYTES = 1 << 26
"""Files of fewer are read: that takes no time, and what another program does to the file then harms nothing."""
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
}


def read_config(folder: Path) -> Fields:
    """The raw config.json of a model folder; what every kind of model reads of it is of its type.

    Raises:
        NotFound: no such folder.
        BadModel: no config.json, one that is not a JSON object, or holds values of other types.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no model folder {folder}")
    path = folder / "config.json"
    if not path.exists():
        check_gguf(sorted(folder.glob("*")))
        inside = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/config.json"))
        where = f"; there is one in {', '.join(inside[:3])}, which may be meant" if inside else ""
        raise BadModel(f"{folder} has no config.json; wanted a transformers model folder{where}")
    config = read_fields(path)
    config.text("model_type", None)
    config.texts("architectures", None)
    for name in ("id2label", "label2id", "auto_map", "quantization_config", "text_config"):
        config.object(name, None)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(config.get(name), int):  # others may have a list of them
            config.integer(name, least=-1, most=_MOST_ID)
    _check_counts(config)
    return config


_MOST_ID = (1 << 31) - 1


_COUNTS = re.compile(r"(?:^n_|num_|_)layers?$|^layers$|^num_labels$|_experts$")
"""Keys of config.json that say how often something is made before any weight is looked at."""
_MOST_DEPTH = 20


def _check_counts(config: Fields, depth: int = 0) -> None:
    """Raise BadModel where config.json, or a part of it, counts more parts than any model has."""
    for key, value in config.items():
        if isinstance(value, dict) and key not in ("id2label", "label2id") and depth < _MOST_DEPTH:
            _check_counts(Fields(value, config.file, config.place(key)), depth + 1)
        elif type(value) is int and _COUNTS.search(key) and value > limit("model_parts"):
            config.refuse(key, f"no {past('model_parts')}")


class Weights:
    """The tensors of a model folder; none is read before it is used.

    Args:
        quantised: read the quantized file in place of transformers' own.

    Raises:
        BadModel: no weights, a missing shard, a file that is torn, or tensors that are not plain numbers in memory.
    """

    def __init__(self, folder: Path, *, quantised: bool = False) -> None:
        self.tensors: dict[str, Tensor] = {}
        """By the network's name, as stored: mapped, and in memory from their first use until they are dropped."""
        self._folder = folder
        self._stored: dict[str, tuple[Tensor, Path]] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        self._versions: dict[Path, _Version] = {}
        self._passing: tuple[Path | None, dict[str, Tensor]] = (None, {})
        self._passed = 0
        for path in [folder / QUANTISED] if quantised else _weight_files(folder):
            if not path.exists():
                raise BadModel(f"{folder} is missing {path.name}, which another of its files names; copy it again")
            self._versions[path] = _version(path)
            for stored, tensor in _open(path).items():
                if stored in self._stored:
                    raise BadModel(f"{folder} holds the tensor {short(stored)} in two files; copy it again")
                self._stored[stored] = tensor, path

    def __len__(self) -> int:
        """Tensors in the files."""
        return len(self._stored)

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The tensors' types, by stored name."""
        return {name: tensor.dtype for name, (tensor, _) in self._stored.items()}

    @property
    def numel(self) -> int:
        """Numbers in the files."""
        return sum(tensor.numel() for tensor, _ in self._stored.values())

    @property
    def nbytes(self) -> int:
        """The tensors' size in bytes."""
        return sum(tensor.nbytes for tensor, _ in self._stored.values())

    def take(self, rename: Callable[[str], str | None]) -> "Weights":
        """Fill `tensors`; returns itself.

        Args:
            rename: from a stored name to the network's, None for tensors that are left out.

        Raises:
            BadModel: two tensors of one name.
        """
        for stored, (tensor, path) in self._stored.items():
            name = rename(stored)
            if name is None:
                continue
            if name in self.tensors:
                other = self._places[name][1]
                raise BadModel(f"{self._folder} holds {name} twice, as {other} and {stored}; copy or download it again")
            self.tensors[name], self._places[name] = tensor, (path, stored)
        return self

    def read_once(self, name: str) -> Tensor:
        """The tensor from a second mapping, to be converted and dropped.

        Pages of a mapping stay in memory until all its tensors are dropped, so the second one is made again every
        64 MB: converting a whole model holds the result and no more than that of the original.

        Raises:
            BadModel: another file has taken the place of the first mapping's.
        """
        path, stored = self._places[name]
        if not _is_mapped(path):
            return self.tensors[name]
        if path != self._passing[0] or self._passed > _PASSING_BYTES:
            opened = _open(path)
            if _version(path) != self._versions[path]:
                raise BadModel(f"{path} was replaced while it was read; wait until nobody writes there")
            self._passing, self._passed = (path, opened), 0
        tensor = self._passing[1][stored]
        self._passed += tensor.nbytes
        return tensor


_Version = tuple[int, int, int, int]


def _version(path: Path) -> _Version:
    """What tells a file from another that takes its name, or its bytes from later ones."""
    facts = check_plain(path, BadModel)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a folder's tensors by their stored names.

    Raises:
        BadModel: as `Weights`.
    """
    return {name: tuple(tensor.shape) for path in _weight_files(folder) for name, tensor in _open(path).items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, wide: bool = False) -> None:
    """Write a safetensors file, under its name when it is whole.

    Args:
        wide: bfloat16 and float16 as float32.

    Unlike the library's writer, this one starts tensors at multiples of 64 bytes in the file, so that they can be used
    where they are mapped. The format allows no gaps, so those whose size is not a multiple, such as the bias of one
    output, come last.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written.
    """
    dtypes = {name: widest(tensor.dtype) if wide else tensor.dtype for name, tensor in tensors.items()}
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (sizes[name] % ALIGNMENT > 0, -dtypes[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        place = [end, end := end + sizes[name]]
        header[name] = {"dtype": _TYPES[dtypes[name]], "shape": list(tensors[name].shape), "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for part in bytes_in(dtypes[name], tensors[name]):
                file.write(part)


def widest(dtype: torch.dtype) -> torch.dtype:
    """float32 for narrow floats; every other type is itself."""
    return torch.float32 if dtype in NARROW else dtype


def bytes_in(dtype: torch.dtype, tensor: Tensor) -> Iterator[memoryview]:
    """A tensor's bytes in another type, in row-major order and a few megabytes at a time; of its own type without a
    copy.
    """
    if tensor.dtype == dtype:
        yield as_bytes(tensor)
        return
    for part in tensor.detach().reshape(-1).split(_CONVERTED_AT_ONCE):
        yield as_bytes(part.to(dtype))


def as_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes in row-major order, without a copy where it is on the CPU and contiguous."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _weight_files(folder: Path) -> list[Path]:
    for name in SINGLE:
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return [folder / shard for shard in _shards(index)]
    check_gguf(sorted(folder.glob("*")))
    raise BadModel(f"{folder} has no weights; wanted {SINGLE[0]} or {SINGLE[1]}, or an index of shards")


_SHARD = re.compile(r"[^/\\\x00]{1,200}\.(?:safetensors|bin)")


def _shards(index: Path) -> list[str]:
    names = read_fields(index).object("weight_map")
    for tensor, shard in names.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            names.refuse(tensor, "the name of a weights file beside it")
    shards = sorted(set(names.values()))
    if not shards or len(shards) > limit("model_parts"):
        raise BadModel(f"{index} names {len(shards):,} files of weights; wanted at least 1, no {past('model_parts')}")
    return shards


def _open(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, mapped.

    Raises:
        BadModel: it may not be read, is torn, or holds something else than plain tensors.
    """
    check_plain(path, BadModel)
    try:
        path.open("rb").close()  # the libraries say of files that may not be read that there are none
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror}; may you read it?") from error
    tensors = open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)
    for name, tensor in tensors.items():
        if reason := _unusable(tensor):
            raise BadModel(f"{path}: the tensor {short(name)} {reason}; save the weights as plain tensors")
    return tensors


def _unusable(tensor: Tensor) -> str | None:
    """Why a tensor is not a plain array in memory, as the end of a sentence."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "is sparse or nested"
    if tensor.is_meta:
        return "has a shape and no values"
    if tensor.is_quantized:
        return "is quantized in torch's own way"
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return f"has the shape {list(tensor.shape)} and fewer values than that"
    return None


def open_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped or, of a small one, read.

    Raises:
        BadModel: it is torn.
    """
    size = check_plain(path, BadModel).st_size
    try:
        if size < _MAPPED_BYTES:
            return {name: tensor.clone() for name, tensor in from_bytes(path.read_bytes()).items()}  # to lie aligned
        with safe_open(path, framework="pt") as file:
            mapped = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return mapped if are_mapped() else {name: tensor.clone() for name, tensor in mapped.items()}
    except Exception as error:  # SafetensorError, OSError, and torch's own of types and shapes that it does not have
        raise _torn(path, error) from error


_POINTER = b"version https://git-lfs.github.com/spec/"


def _is_mapped(path: Path) -> bool:
    """Files of torch from before 1.6 are not zip archives and are read into memory."""
    return path.suffix == ".safetensors" or zipfile.is_zipfile(path)


_MAKERS = re.compile(
    rb"c(?:__builtin__|builtins)\n(?:bytearray|set|complex)\n|c_codecs\nencode\n|ccollections\nCounter\n"
)
"""Calls in a pickle that no tensor needs and that make memory out of a number; torch allows them."""
_ODD_TENSORS = re.compile(rb"ctorch\._utils\n_rebuild_(nested|qtensor|sparse)\w*\n")
_ODD_NAMES = {b"nested": "nested", b"qtensor": "quantized in torch's own way", b"sparse": "sparse"}
"""Refused before torch makes them, which it warns of."""


def _open_bin(path: Path) -> dict[str, Tensor]:
    try:
        _check_pickle(path)
        mapped = _is_mapped(path) and path.stat().st_size >= _MAPPED_BYTES and are_mapped()
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except BadModel:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _torn(path, error) from error
    plain = isinstance(tensors, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    )
    if not plain:
        raise BadModel(f"{path} does not hold a plain dictionary of tensors by name")
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _check_pickle(path: Path) -> None:
    """Raise BadModel for a pickle that would make more memory than its file has bytes."""
    if not _is_mapped(path):
        with path.open("rb") as file:
            head = file.read(limit("pickle_bytes"))
    else:
        with zipfile.ZipFile(path) as archive:
            inside = archive.infolist()
            packed = [entry.filename for entry in inside if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise BadModel(f"{path} holds {short(packed[0])} compressed, as torch does not; save the weights again")
            pickles = [entry for entry in inside if entry.filename.endswith("data.pkl")]
            if any(entry.file_size > limit("pickle_bytes") for entry in pickles):
                raise BadModel(f"{path} has a pickle of {past('pickle_bytes')}")
            head = b"".join(archive.read(entry) for entry in pickles)
    if odd := _ODD_TENSORS.search(head):
        raise BadModel(f"{path} holds a tensor that is {_ODD_NAMES[odd[1]]}; save the weights as plain tensors")
    if made := _MAKERS.search(head):
        call = made[0].decode().split()[-1]
        raise BadModel(f"{path} calls {call}, as no file of weights does; it is not read")


def _torn(path: Path, error: Exception) -> BadModel:
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return BadModel(f"{path} is what Git LFS leaves in place of the weights; fetch them with git lfs pull")
    message = str(error).rpartition("WeightsUnpickler error:")[2]  # before it torch advises to run what is in the file
    reason = (message.strip().splitlines() or [type(error).__name__])[0][:200]
    return BadModel(f"{path} cannot be read as weights ({reason}); it may be half-written: copy or download it again")
