"""Model folders in and out: plain `AutoModelForSequenceClassification` folders of transformers.

BERT, RoBERTa, ELECTRA and DeBERTa-v2 run on our packed encoders and never import transformers; everything else goes
through `OtherNetwork`. Weights are assigned to a model built without memory, so there is one copy of them.
Older files are read too: LayerNorm's gamma and beta, backbones without the model's prefix, and backbones that still
carry the head of their pre-training, which is left out.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from prefrank.errors import BadModel
from prefrank.model.bert import FAMILIES, BertNetwork
from prefrank.model.deberta import DebertaNetwork
from prefrank.model.encoder import field
from prefrank.model.network import Network, fingerprint, head_parameter_names
from prefrank.model.other import OtherNetwork, load_other
from prefrank.model.weights import read_config, read_tensors

__all__ = ["fingerprint", "load_network", "save_network"]

ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "deberta-v2": "DebertaV2ForSequenceClassification",
}
_LEFT_OUT = re.compile(
    r"(?:^|\.)(?:position_ids|token_type_ids)$"
    r"|(?:^|\.)pooler\.dense\.|embeddings\.position_embeddings\.weight$"
    r"|^(?:cls|lm_head|(?:lm|mask|discriminator|generator)_predictions|generator_lm_head)\."
)
"""Names that a checkpoint may have and a reward model may not need: buffers, pre-training heads, unused tables."""


def load_network(
    folder: Path,
    *,
    new_head: bool = False,
    dropout: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Network:
    """Load a model folder, in evaluation mode.

    Args:
        new_head: give the model a new output layer, drawn from torch's default generator with the config's
            initializer_range, whatever it had; a missing pooler is made too. Needed to train from a backbone.
        dropout: replaces every dropout rate of the config; it is not saved.
        dtype: of the weights in memory.

    Raises:
        NotFound: no such folder.
        BadModel: torn or missing files, several outputs, no reward head, or parts that do not fit each other.
    """
    raw = read_config(folder)
    device = device or torch.device("cpu")
    with torch.device("meta"):
        network = _native(raw, dropout)
    if network is None:
        return load_other(folder, raw, new_head=new_head, dropout=dropout, dtype=dtype, device=device)
    tensors = _read_native(folder, network, dtype, device)
    if new_head:
        _add_head(network, tensors, dtype, device)
    _check(folder, network, tensors)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def save_network(network: Network, folder: Path) -> None:
    """Write config.json and the weights into an existing folder, best one of `atomic_folder`.

    Raises:
        OSError: the disk is full, or the folder cannot be written (`atomic_folder` makes it CannotWrite).
    """
    try:
        network.save_weights(folder) if isinstance(network, OtherNetwork) else _save_native(network, folder)
    except SafetensorError as error:
        raise _as_os_error(error) from error
    path = folder / "config.json"
    path.write_text(json.dumps(_config_to_save(network), indent=2) + "\n", encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # safetensors makes files that only their owner can read
        weights.chmod(path.stat().st_mode & 0o777)


def _native(raw: Mapping[str, Any], dropout: float | None) -> BertNetwork | DebertaNetwork | None:
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise BadModel(f"config.json's model_type is {kind!r}; wanted a name such as 'bert' or 'deberta-v2'")
    if raw.get("is_decoder"):
        return None
    if kind in FAMILIES:
        return BertNetwork(raw, dropout=dropout)
    return DebertaNetwork(raw, dropout=dropout) if kind == "deberta-v2" else None


def _read_native(
    folder: Path, network: BertNetwork | DebertaNetwork, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    expected = network.state_dict()
    found = {}
    for stored, tensor in read_tensors(folder):
        name = _modern_name(stored, expected, network.family)
        if name in expected or not _LEFT_OUT.search(stored):
            # A copy, so that nothing depends on the file once it is loaded.
            found[name] = tensor.to(device, dtype, copy=True)
    return found


def _modern_name(stored: str, expected: Mapping[str, Tensor], prefix: str) -> str:
    name = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"{prefix}.{name}" if f"{prefix}.{name}" in expected and name not in expected else name


def _add_head(
    network: BertNetwork | DebertaNetwork, tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device
) -> None:
    spread = field(network.config, "initializer_range", float, 0.02)
    expected = network.state_dict()
    for name in head_parameter_names(network):
        if name in tensors and not name.startswith(network.output_layer):
            continue
        value = torch.zeros(expected[name].shape)
        tensors[name] = (value.normal_(0.0, spread) if name.endswith("weight") else value).to(device, dtype)


def _check(folder: Path, network: BertNetwork | DebertaNetwork, tensors: Mapping[str, Tensor]) -> None:
    expected = network.state_dict()
    output = tensors.get(f"{network.output_layer}.weight")
    if output is None:
        raise BadModel(f"{folder} has no reward head; train one, or pass a reward model")
    if output.shape[:1] != (1,):
        raise BadModel(f"{folder} holds a classifier with {len(output)} outputs; a reward model has one")
    if missing := expected.keys() - tensors.keys():
        raise BadModel(f"the weights in {folder} lack {_some(missing)}; copy or download them again")
    if unexpected := tensors.keys() - expected.keys():
        raise BadModel(f"the weights in {folder} do not fit its config.json: it knows no {_some(unexpected)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, its config.json asks for {list(expected[name].shape)}"
            raise BadModel(f"in {folder} the tensor {name} is {shapes}")


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _save_native(network: Network, folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory.
        shared = tensor.untyped_storage().data_ptr() in storages
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor.clone() if shared else tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _as_os_error(error: SafetensorError) -> OSError:
    """safetensors reports a full disk with the system's error number only in the text."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match.group(1)) if match else errno.EIO
    return OSError(number, os.strerror(number))


def _config_to_save(network: Network) -> dict[str, Any]:
    """The config.json it came with, for one output; `id2label` is where transformers counts outputs."""
    kept = {key: value for key, value in network.config.items() if key not in ("num_labels", "torch_dtype")}
    name = network.architecture if isinstance(network, OtherNetwork) else ARCHITECTURES[kept["model_type"]]
    dtype = next(network.parameters()).dtype
    return {
        **kept,
        "architectures": [name],
        "dtype": str(dtype).removeprefix("torch."),
        "id2label": {"0": "REWARD"},
        "label2id": {"REWARD": 0},
        "problem_type": "regression",
    }
