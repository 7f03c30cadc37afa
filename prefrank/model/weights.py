"""Tensors of a checkpoint folder, whichever of transformers' four layouts it has.

One file or several with an index, safetensors or pickled (`pytorch_model.bin`, read with `weights_only=True`, so no
code in it runs). Tensors come one by one and straight from the mapped file, so that loading holds one copy of them.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prefrank.errors import BadModel, NotFound

SINGLE = ("model.safetensors", "pytorch_model.bin")


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
        raise BadModel(f"{folder} has no config.json; wanted a transformers model folder")
    return _read_object(path)


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the folder's weights, as stored.

    Raises:
        BadModel: no weights, a missing shard, or a file that is torn.
    """
    for path in _weight_files(folder):
        if not path.is_file():
            raise BadModel(f"{folder} is missing the shard {path.name} that its index names; copy it again")
        yield from _read_safetensors(path) if path.suffix == ".safetensors" else _read_bin(path)


def _weight_files(folder: Path) -> list[Path]:
    for name in SINGLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in _shards(index)]
    raise BadModel(f"{folder} has no weights; wanted {SINGLE[0]} or {SINGLE[1]}, or an index of shards")


def _shards(index: Path) -> list[str]:
    names = _read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise BadModel(f"{index} has no weight_map from tensor names to files")
    shards = sorted(set(names.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise BadModel(f"{index} names the shard {shard!r}; wanted a file beside it")
    return shards


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadModel(f"{path} holds a JSON {type(value).__name__}; wanted an object")
    return value


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from error


def _read_bin(path: Path) -> Iterator[tuple[str, Tensor]]:
    # Files from before torch 1.6 are not zip archives and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _torn(path, error) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise BadModel(f"{path} does not hold a plain dictionary of tensors")
    yield from tensors.items()


def _torn(path: Path, error: Exception) -> BadModel:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BadModel(f"{path} cannot be read as weights ({reason}); it may be half-written: copy or download it again")
