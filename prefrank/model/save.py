"""Model folders out: plain `AutoModelForSequenceClassification` folders of transformers; with tokenizer and record a
checkpoint, from which scores come back bit for bit.
"""

import copy
import errno
import json
import os
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from torch import Tensor

from prefrank.errors import BadInput, short
from prefrank.model.families import FAMILIES
from prefrank.model.integer_weights import stored_precision
from prefrank.model.network import Network, PackedDecoder, as_decoder, fingerprint, is_wide
from prefrank.model.other import OtherNetwork, text_config
from prefrank.model.record import LAST, NOT_PADDING, ModelRecord, write_record
from prefrank.model.weights import QUANTISED, SINGLE, write_tensors


@runtime_checkable
class TextPath(Protocol):
    """What a checkpoint needs of the text side (`prefrank.text.TextEncoder`), which this package does not import."""

    def text_json(self) -> dict[str, Any]: ...

    def fingerprint_bytes(self) -> bytes: ...

    def save(self, folder: Path) -> None: ...

    def with_padding(self, wanted: int | None, *, never: frozenset[int]) -> "tuple[TextPath, int]":
        """The same text path whose tokenizer pads with a token that can end no row, or with the one that is wanted."""
        ...


def check_target(target: str | Path, source: Path, what: str) -> None:
    """See, before any work, that a new folder's name can be one and does not stand for a folder around what is read.

    Args:
        what: is read, in a word.

    Raises:
        BadInput: it cannot, or does.
    """
    try:
        place = os.path.realpath(target)
    except ValueError as error:  # a zero, or half a character, in it
        raise BadInput(f"{short(str(target))} cannot be the name of a folder ({error}); give another") from None
    if source.is_relative_to(place):
        raise BadInput(f"{target} holds the {what} itself, which would be replaced; give the name of a new folder")


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
    if decoder := as_decoder(network):
        text, padding = text.with_padding(decoder.scored_padding, never=_ends(network.config))
        rows = max(0, padding + 1 - network.vocab_size)
    print_of = fingerprint(network, extra=text.fingerprint_bytes())
    save_network(network, folder, padding=padding)
    text.save(folder)
    record = ModelRecord(
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
    """Which token a network's score is read at, in the words of `ModelRecord`; of encoders `LAST`, without effect."""
    decoder = as_decoder(network)
    return LAST if decoder is None or decoder.scored_padding is None else NOT_PADDING


def _ends(config: dict[str, Any]) -> frozenset[int]:
    """Ids that config.json says begin or end texts."""
    ids: list[int] = []
    for part in (config, text_config(config)):
        for name in ("bos_token_id", "eos_token_id"):
            value = part.get(name)
            ids += value if isinstance(value, list) else [value] if isinstance(value, int) else []
    return frozenset(ids)


def save_network(network: Network, folder: Path, *, padding: int | None = None) -> None:
    """Write config.json and the weights into an existing folder, best one of `atomic_folder`.

    The weights get their name when they are whole: a network may be saved into the folder that it is mapped from.

    Args:
        padding: id of a token that never ends a row, for a decoder that is scored at the last (`padding.py`); its
            embedding is added where there is none. Without it such a folder names no padding token.

    Raises:
        OSError: the disk is full, or the folder cannot be written (`atomic_folder` makes it CannotWrite).
    """
    path = folder / "config.json"
    if isinstance(network, OtherNetwork):
        try:
            network.save_weights(folder, rows=None if padding is None else padding + 1)
        except SafetensorError as error:
            raise _as_os_error(error) from error
    else:
        quantised = stored_precision(network.config) is not None
        tensors = _with_padding(network, padding)
        write_tensors(
            folder / (QUANTISED if quantised else SINGLE[0]), tensors, wide=is_wide(network) and not quantised
        )
    path.write_text(json.dumps(_config_to_save(network, padding), indent=2) + "\n", encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # transformers makes files that only their owner can read
        weights.chmod(path.stat().st_mode & 0o777)


def _with_padding(network: Network, padding: int | None) -> dict[str, Tensor]:
    """A network's tensors; zeros for the embeddings up to the padding token's that a decoder of ours does not have."""
    tensors: dict[str, Tensor] = network.state_dict()
    if isinstance(network, PackedDecoder) and padding is not None and padding >= network.vocab_size:
        name = f"{network.backbone}.embed_tokens.weight"
        words = tensors[name]
        tensors[name] = torch.cat([words, words.new_zeros(padding + 1 - len(words), words.shape[1])])
    return tensors


def _as_os_error(error: SafetensorError) -> OSError:
    """safetensors reports a full disk with the system's error number only in the text."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match.group(1)) if match else errno.EIO
    return OSError(number, os.strerror(number))


def _config_to_save(network: Network, padding: int | None) -> dict[str, Any]:
    """The config.json it came with, for the network's heads; `id2label` is where transformers counts outputs."""
    raw = copy.deepcopy(network.config)
    if decoder := as_decoder(network):
        text = text_config(raw)
        text["pad_token_id"] = decoder.scored_padding if padding is None else padding
        text["vocab_size"] = max(network.vocab_size, 0 if padding is None else padding + 1)
    kept = {key: value for key, value in raw.items() if key not in ("num_labels", "torch_dtype")}
    name = network.architecture if isinstance(network, OtherNetwork) else FAMILIES[kept["model_type"]].architecture
    dtype = torch.float32 if is_wide(network) else next(network.parameters()).dtype
    return {
        **kept,
        "architectures": [name],
        "dtype": str(dtype).removeprefix("torch."),
        "id2label": {str(number): name for number, name in enumerate(network.heads)},
        "label2id": {name: number for number, name in enumerate(network.heads)},
        "problem_type": "regression",
    }
