"""`prefrank.json`: the one file prefrank adds to a plain transformers folder, which transformers ignores.

It holds the text settings (so that loading rebuilds the exact text path), the fingerprint of weights, tokenizer and
settings at saving time, what is known of the training, how a quantised model was made, and the temperature of its
probabilities where one was fitted. A folder without it is a plain checkpoint.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prefrank.errors import BadModel
from prefrank.io.atomic import write_file
from prefrank.model.adapter import is_adapter, read_adapter
from prefrank.model.checkpoint import LAST, RECORD, save_network
from prefrank.model.network import Network, fingerprint
from prefrank.model.other import OtherNetwork, text_config

FORMAT = 1
NOT_PADDING = "not padding"


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


@runtime_checkable
class TextPath(Protocol):
    """What a checkpoint needs of the text side (`prefrank.text.TextEncoder`), which this package does not import."""

    def text_json(self) -> dict[str, Any]: ...

    def fingerprint_bytes(self) -> bytes: ...

    def save(self, folder: Path) -> None: ...

    def with_padding(self, wanted: int | None, *, never: frozenset[int]) -> "tuple[TextPath, int]":
        """The same text path whose tokenizer pads with a token that can end no row, or with the one that is wanted."""
        ...


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

    Call it inside `atomic_folder`, so that a checkpoint is whole or not there. A decoder's folder names a padding token
    in config and tokenizer, with which transformers scores padded batches as prefrank does; a tokenizer that had to get
    a new token for it makes another fingerprint, which a calibration goes with.
    """
    padding, rows = None, 0
    if isinstance(network, OtherNetwork) and network.decoder:
        text, padding = text.with_padding(network.scored_padding, never=_ends(network.config))
        rows = max(0, padding + 1 - network.vocab_size)
    print_of = fingerprint(network, extra=text.fingerprint_bytes())
    save_network(network, folder, padding=padding)
    text.save(folder)
    record = Record(
        text.text_json(),
        print_of,
        training,
        quantised,
        calibration={**calibration, "model": print_of} if calibration else None,
        scored_token=scored_token(network),
        padding_rows=rows,
    )
    write_record(folder, record)
    return print_of


def scored_token(network: Network) -> str:
    """Which token a network's score is read at, in the words of `Record`; of encoders `LAST`, without effect."""
    passes = isinstance(network, OtherNetwork) and network.scored_padding is not None
    return NOT_PADDING if passes else LAST


def _ends(config: dict[str, Any]) -> frozenset[int]:
    """Ids that config.json says begin or end texts."""
    ids: list[int] = []
    for part in (config, text_config(config)):
        for name in ("bos_token_id", "eos_token_id"):
            value = part.get(name)
            ids += value if isinstance(value, list) else [value] if isinstance(value, int) else []
    return frozenset(ids)


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
            value.get("scored_token", LAST),
            value.get("padding_rows", 0),
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(f"{path} cannot be read: {error!r}; save the checkpoint again or delete that file") from error


def text_settings(folder: Path) -> dict[str, Any] | None:
    """The text settings that a model was trained with, as `Record.text`; an adapter without a record has its base's.

    None for a plain checkpoint.

    Raises:
        NotFound, BadModel: a base that is missing, torn files.
    """
    if (record := read_record(folder)) is not None:
        return record.text
    return text_settings(read_adapter(folder).base_folder()) if is_adapter(folder) else None


def write_record(folder: Path, record: Record) -> None:
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
