"""`prefrank.json`: the one file prefrank adds to a plain transformers folder, which transformers ignores.

It holds the text settings (so that loading rebuilds the exact text path), the fingerprint of weights, tokenizer and
settings at saving time, what is known of the training, how a quantized model was made, and the temperature of its
probabilities where one was fitted. A folder without it is a plain checkpoint.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefrank.errors import BadModel
from prefrank.io.atomic import write_file
from prefrank.io.json_files import Fields, read_fields
from prefrank.limits import limit
from prefrank.model.adapter import is_adapter, read_adapter

RECORD = "prefrank.json"
FORMAT = 1
LAST, NOT_PADDING = "last", "not padding"
"""Of `scored_token`."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What prefrank knows of a checkpoint beyond its weights.

    Args:
        text: the text settings, as `TextSettings.to_json()` gives them.
        fingerprint: of weights, tokenizer and text settings when the folder was saved.
        training: recipe, data counts, versions, metrics of the run that made it; None where unknown.
        quantised: precision, fingerprint of the float model, data and parity figures; None for float weights.
        heads: of an adapter, the names of its heads, which a plain folder has in config.json.
        calibration: temperature, what it was fitted on, and `model`, the fingerprint of the scores it is for (of one
            head and precision); None where it was not fitted.
        scored_token: of a decoder: "last", a row's last token, or "not padding", the rightmost that is not
            config.json's padding. In the first case that padding can end no row, so that transformers' rule, which is
            the second, finds the same token.
        padding_rows: rows of embeddings that were added for that padding, and are left out when the folder is loaded.
    """

    text: dict[str, Any]
    fingerprint: str
    training: dict[str, Any] | None = None
    quantised: dict[str, Any] | None = None
    heads: tuple[str, ...] = ()
    calibration: dict[str, Any] | None = None
    scored_token: str = LAST
    padding_rows: int = 0


def read_record(folder: Path) -> ModelRecord | None:
    """The record of a checkpoint folder; None for a plain checkpoint.

    Raises:
        BadModel: the file is there but torn, or of a newer format.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    stored = read_fields(path)
    if (stored_format := stored.integer("format")) != FORMAT:
        raise BadModel(f"{path} has format {stored_format}, this prefrank reads {FORMAT}; update prefrank")
    heads = stored.texts("heads", ())
    if len(set(heads)) < len(heads) or "" in heads:
        stored.refuse("heads", "a list of different names")
    if (scored := stored.text("scored_token", LAST)) not in (LAST, NOT_PADDING):
        stored.refuse("scored_token", f"{LAST!r} or {NOT_PADDING!r}")
    return ModelRecord(
        dict(stored.object("text")),
        stored.text("fingerprint"),
        _facts(stored, "training"),
        _facts(stored, "quantised"),
        heads,
        _calibration(stored),
        scored,
        stored.integer("padding_rows", 0, most=limit("model_parts")),
    )


def _facts(stored: Fields, key: str) -> dict[str, Any] | None:
    facts = stored.object(key, None)
    return None if facts is None else dict(facts)


def _calibration(stored: Fields) -> dict[str, Any] | None:
    calibration = stored.object("calibration", None)
    if calibration is None:
        return None
    if calibration.number("temperature") <= 0:
        calibration.refuse("temperature", "a number above 0")
    calibration.text("model", None)
    calibration.flag("pre_rendered", None)
    calibration.number("empty_score", None)
    return dict(calibration)


def text_settings(folder: Path) -> dict[str, Any] | None:
    """The text settings that a model was trained with, as `ModelRecord.text`; of an adapter without one its base's.

    None for a plain checkpoint.

    Raises:
        NotFound, BadModel: a base that is missing, torn files.
    """
    if (record := read_record(folder)) is not None:
        return record.text
    return text_settings(read_adapter(folder).base_folder()) if is_adapter(folder) else None


def write_record(folder: Path, record: ModelRecord) -> None:
    """Write prefrank.json into an existing folder, whole or not at all.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written.
    """
    value = {
        "prefrank": version("prefrank"),
        "format": FORMAT,
        "text": record.text,
        "fingerprint": record.fingerprint,
        "training": record.training,
        **({"quantised": record.quantised} if record.quantised else {}),
        **({"heads": list(record.heads)} if record.heads else {}),
        **({"calibration": record.calibration} if record.calibration else {}),
        **({"scored_token": record.scored_token} if record.scored_token != LAST else {}),
        **({"padding_rows": record.padding_rows} if record.padding_rows else {}),
    }
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(folder / RECORD, f"{text}\n".encode())
