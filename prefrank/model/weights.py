"""Tensors of a checkpoint folder, whichever of transformers' four layouts it has, or our own quantised one.

One file or several with an index, safetensors or pickled (`pytorch_model.bin`, read with `weights_only=True`, so no
code in it runs). Files are mapped, not read: a tensor's pages come into memory when it is first used, processes that
load the same folder share them, and writing to a tensor (training) makes private pages and never touches the file.

Surprising: the mapping outlives the file's name. A folder may be replaced or deleted while it is loaded; everything
prefrank writes goes to a new file that is then renamed. A program that overwrites the bytes of the very file changes
the loaded weights, and one that cuts it short ends this process (SIGBUS).
"""

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prefrank.errors import BadModel, NotFound
from prefrank.io.atomic import atomic_file
from prefrank.io.json_files import read_object

SINGLE = ("model.safetensors", "pytorch_model.bin")
QUANTISED = "quantised.safetensors"
"""A name of its own, so that transformers, which ignores methods of quantisation it does not know and would take the
integers for weights, finds none and says so."""
ALIGNMENT = 64
"""Of tensors, in bytes, as torch allocates them: MKL adds up in another order where they lie otherwise."""
_PASSING_BYTES = 1 << 26
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
}


def read_config(folder: Path) -> dict[str, Any]:
    """The raw config.json of a model folder.

    Raises:
        NotFound: no such folder.
        BadModel: no config.json, or one that is not a JSON object.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no model folder {folder}")
    path = folder / "config.json"
    if not path.is_file():
        inside = sorted(str(one.parent.relative_to(folder)) for one in folder.glob("*/config.json"))
        where = f"; there is one in {', '.join(inside[:3])}, which may be meant" if inside else ""
        raise BadModel(f"{folder} has no config.json; wanted a transformers model folder{where}")
    return read_object(path)


class Weights:
    """The tensors of a model folder; none is read before it is used.

    Args:
        rename: from a stored name to the network's, None for tensors that are left out.
        quantised: read the quantised file in place of transformers' own.

    Raises:
        BadModel: no weights, a missing shard, or a file that is torn.
    """

    def __init__(self, folder: Path, rename: Callable[[str], str | None], *, quantised: bool = False) -> None:
        self.tensors: dict[str, Tensor] = {}
        """By the network's name, as stored: mapped, and in memory from their first use until they are dropped."""
        self._places: dict[str, tuple[Path, str]] = {}
        self._passing: tuple[Path | None, dict[str, Tensor]] = (None, {})
        self._passed = 0
        for path in [folder / QUANTISED] if quantised else _weight_files(folder):
            if not path.is_file():
                raise BadModel(f"{folder} is missing {path.name}, which another of its files names; copy it again")
            for stored, tensor in _open(path).items():
                name = rename(stored)
                if name is not None:
                    self.tensors[name], self._places[name] = tensor, (path, stored)

    def read_once(self, name: str) -> Tensor:
        """The tensor from a second mapping, to be converted and dropped.

        Pages of a mapping stay in memory until all its tensors are dropped, so the second one is made anew every
        64 MB: converting a whole model holds the result and no more than that of the original.
        """
        path, stored = self._places[name]
        if not _is_mapped(path):
            return self.tensors[name]
        if path != self._passing[0] or self._passed > _PASSING_BYTES:
            self._passing, self._passed = (path, _open(path)), 0
        tensor = self._passing[1][stored]
        self._passed += tensor.nbytes
        return tensor


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a folder's tensors by their stored names.

    Raises:
        BadModel: as `Weights`.
    """
    return {name: tuple(tensor.shape) for path in _weight_files(folder) for name, tensor in _open(path).items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, under its name when it is whole.

    Unlike the library's writer, this one starts tensors at multiples of 64 bytes in the file, so that they can be used
    where they are mapped. The format allows no gaps, so those whose size is no multiple, such as the bias of one
    output, come last.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written.
    """
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % ALIGNMENT > 0, -tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        place = [end, end := end + tensor.nbytes]
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(as_bytes(tensors[name]))


def as_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes in row-major order, without a copy where it is on the CPU and contiguous."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _weight_files(folder: Path) -> list[Path]:
    for name in SINGLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in _shards(index)]
    raise BadModel(f"{folder} has no weights; wanted {SINGLE[0]} or {SINGLE[1]}, or an index of shards")


def _shards(index: Path) -> list[str]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise BadModel(f"{index} has no weight_map from tensor names to files")
    shards = sorted(set(names.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise BadModel(f"{index} names the shard {shard!r}; wanted a file beside it")
    return shards


def _open(path: Path) -> dict[str, Tensor]:
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from error


def _is_mapped(path: Path) -> bool:
    """Files of torch from before 1.6 are no zip archives and are read into memory."""
    return path.suffix == ".safetensors" or zipfile.is_zipfile(path)


def _open_bin(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_mapped(path))
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _torn(path, error) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise BadModel(f"{path} does not hold a plain dictionary of tensors")
    return dict(tensors)


def _torn(path: Path, error: Exception) -> BadModel:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BadModel(f"{path} cannot be read as weights ({reason}); it may be half-written: copy or download it again")
