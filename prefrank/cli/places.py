"""Where a command's options lead on this machine, so that what it writes can be held against what it reads."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefrank.errors import PrefrankError
from prefrank.io.atomic import check_writable
from prefrank.io.json_files import read_object
from prefrank.io.outputs import check_outputs

_ADAPTER = "adapter_config.json"
_RUN_FILES = ("run.json", "curve.jsonl", "sweep.json", "run.lock", "*/prefrank.json", "*/config.json")
"""What a training run's folder has of its own: files, and folders with checkpoints."""


def check_files(outputs: Mapping[str, Path | None], inputs: Iterable[Path]) -> None:
    """See, before any work, that files can be written, and over nothing that is read or written besides.

    Args:
        outputs: by the names of their options; None for those not asked for.

    Raises:
        BadInput: as `check_outputs`.
        CannotWrite: as `check_writable`.
    """
    check_outputs(outputs, inputs)
    for path in outputs.values():
        if path is not None and str(path) != "-":
            check_writable(path)


def local_places(*given: str | Path | None) -> Iterator[Path]:
    """What the values of options may name here, in each of the ways in which they are read: SOURCE, SOURCE:SPLIT,
    NAME=FOLDER, scores:FILE, models and the bases of adapters. What is not there is left to whoever reads it."""
    for value in map(str, filter(None, given)):
        whole = [value, value.partition("=")[2]]
        whole += [text.removeprefix("scores:") for text in whole]
        for text in dict.fromkeys([*whole, *(text.rpartition(":")[0] for text in whole)]):
            path = Path(os.path.expanduser(text))
            if text and _there(path):
                yield from own_files(path) if _is_run(path) else [path, *_base(path)]


def recipe_places(recipe: Mapping[str, Any]) -> list[Path]:
    """The model and the data sets of a recipe, as plain values, checked or not."""
    sets = [recipe.get(key) for key in ("datasets", "evaluation")]
    named = [data_set for value in sets for data_set in (value if isinstance(value, list | tuple) else [value])]
    sources = [data_set.get("source") if isinstance(data_set, Mapping) else data_set for data_set in named]
    return list(local_places(*(name for name in (recipe.get("model_name"), *sources) if isinstance(name, str))))


def own_files(run: Path) -> list[Path]:
    """The files and checkpoints of a training run; what else stands in its folder is somebody's notes."""
    paths = [path for name in _RUN_FILES for path in run.glob(name)]
    return [path.parent if path.parent != run else path for path in paths]


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and not (folder / "config.json").exists() and bool(own_files(folder))


def _base(folder: Path) -> list[Path]:
    """The local base of an adapter."""
    try:
        base = read_object(folder / _ADAPTER).get("base_model_name_or_path")
    except PrefrankError:
        return []
    own = [Path(os.path.expanduser(base))] if isinstance(base, str) and base else []
    return [path for path in own if _there(path)]


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
