"""Folders that bring code of their own: `auto_map` in config.json names classes in Python files beside the weights.

Such code runs only where the caller says `trust_remote_code=True`. Without it a folder is refused where the class it
names is the one that would score: weights with the names of a plain class load into that class silently, and its
scores may be of any other meaning, or of the wrong sign.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefrank.errors import BadModel

CLASSIFIER = "AutoModelForSequenceClassification"


def custom_class(raw: Mapping[str, Any]) -> str | None:
    """Which entry of config.json's auto_map is the class that would score: a sequence classifier's, or `AutoModel`
    where that class made the weights or transformers does not know the type; None for a plain folder.
    """
    code = raw.get("auto_map")
    if not isinstance(code, dict) or not code:
        return None
    if code.get(CLASSIFIER):
        return CLASSIFIER
    made = {str(name) for name in raw.get("architectures") or ()}
    named = {_class_name(entry) for key, entry in code.items() if key != "AutoConfig"}
    if named & made or not _is_known(raw.get("model_type")):
        return "AutoModel" if code.get("AutoModel") else CLASSIFIER
    return None


def check_code(folder: Path, raw: Mapping[str, Any], *, trust_remote_code: bool) -> None:
    """Raise BadModel for a folder whose own code would score, unless it is trusted."""
    if trust_remote_code or custom_class(raw) is None:
        return
    code = raw["auto_map"]
    key = next((key for key in (CLASSIFIER, "AutoModel") if code.get(key)), next(iter(code)))
    made = ", ".join(map(str, raw.get("architectures") or ["no class"]))
    raise BadModel(
        f"{folder} holds a {made} that is scored by code of its own (auto_map names {_class_name(code[key])} in"
        f" {_file_of(code[key])}), which is not run; read that code, then score with trust_remote_code=True"
        " (--trust-remote-code); nothing is trained from such a model, merged or quantized"
    )


def _class_name(entry: Any) -> str:
    """Of "file.Class" or "owner/repository--file.Class"; a tokenizer's entry is a list."""
    return _text(entry).rpartition(".")[2]


def _file_of(entry: Any) -> str:
    repository, _, place = _text(entry).rpartition("--")
    file = f"{place.rpartition('.')[0]}.py"
    return f"{file} of {repository}" if repository else file


def _text(entry: Any) -> str:
    parts = entry if isinstance(entry, list) else [entry]
    return next((part for part in parts if isinstance(part, str)), "")


def _is_known(kind: object) -> bool:
    """Whether transformers has a class of its own for a model_type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # costs seconds, so only for such folders

    return isinstance(kind, str) and kind in CONFIG_MAPPING
