"""`prefrank.json`: the one file prefrank adds to a plain transformers folder, which transformers ignores.

It holds the text settings (so that loading rebuilds the exact text path), the fingerprint of weights, tokenizer and
settings at saving time, what is known of the training, how a quantised model was made, and the temperature of its
probabilities where one was fitted. A folder without it is a plain checkpoint.
"""

import json
import os
import secrets
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prefrank.errors import BadModel
from prefrank.model.checkpoint import RECORD, save_network
from prefrank.model.network import Network, fingerprint

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What prefrank knows of a checkpoint beyond its weights.

    Args:
        text: the text settings, as `TextSettings.to_json()` gives them.
        fingerprint: of weights, tokenizer and text settings when the folder was saved.
        training: recipe, data counts, versions, metrics of the run that made it; None where unknown.
        quantised: precision, fingerprint of the float model, data and parity figures; None for float weights.
        heads: of an adapter, the names of its heads, which a plain folder has in config.json.
        calibration: temperature, what it was fitted on, and `model`, the fingerprint of the scores it is for (of one
            head and precision); None where it was not fitted.
    """

    text: dict[str, Any]
    fingerprint: str
    training: dict[str, Any] | None = None
    quantised: dict[str, Any] | None = None
    heads: tuple[str, ...] = ()
    calibration: dict[str, Any] | None = None


@runtime_checkable
class TextPath(Protocol):
    """What a checkpoint needs of the text side (`prefrank.text.TextEncoder`), which this package does not import."""

    def text_json(self) -> dict[str, Any]: ...

    def fingerprint_bytes(self) -> bytes: ...

    def save(self, folder: Path) -> None: ...


def write_checkpoint(
    folder: Path,
    network: Network,
    text: TextPath,
    training: dict[str, Any] | None,
    *,
    quantised: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
) -> str:
    """Write weights, tokenizer and prefrank.json into an existing folder; returns the fingerprint.

    Call it inside `atomic_folder`, so that a checkpoint is whole or not there.
    """
    print_of = fingerprint(network, extra=text.fingerprint_bytes())
    save_network(network, folder)
    text.save(folder)
    write_record(folder, Record(text.text_json(), print_of, training, quantised, calibration=calibration))
    return print_of


def read_record(folder: Path) -> Record | None:
    """The record of a checkpoint folder; None for a plain checkpoint.

    Raises:
        BadModel: the file is there but torn, or of a newer format.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise BadModel(f"{path} has format {value['format']}, this prefrank reads {FORMAT}; update prefrank")
        return Record(
            value["text"],
            value["fingerprint"],
            value["training"],
            value.get("quantised"),
            tuple(value.get("heads", ())),
            value.get("calibration"),
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(f"{path} cannot be read: {error!r}; save the checkpoint again or delete that file") from error


def write_record(folder: Path, record: Record) -> None:
    """Write prefrank.json into an existing folder, whole or not at all."""
    value = {
        "prefrank": version("prefrank"),
        "format": FORMAT,
        "text": record.text,
        "fingerprint": record.fingerprint,
        "training": record.training,
        **({"quantised": record.quantised} if record.quantised else {}),
        **({"heads": list(record.heads)} if record.heads else {}),
        **({"calibration": record.calibration} if record.calibration else {}),
    }
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    temporary = folder / f".{RECORD}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / RECORD)
    finally:
        temporary.unlink(missing_ok=True)
