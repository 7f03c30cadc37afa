"""Model folders in and out: plain `AutoModelForSequenceClassification` folders of transformers.

BERT, RoBERTa, ELECTRA and DeBERTa-v2 run on our packed encoders and never import transformers; everything else goes
through `OtherNetwork`. The model is built without memory and takes the mapped tensors themselves, so there is one
copy of them, in the file. Only what has to change its type or device is converted, tensor by tensor, and so are tensors
that a file of other programs has at odd places: a score's last bits do not depend on where its weights lie.
Older files are read too: LayerNorm's gamma and beta, backbones without the model's prefix, and backbones that still
carry the head of their pre-training, which is left out.
"""

import errno
import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from prefrank.errors import BadInput, BadModel, suggest
from prefrank.model.bert import FAMILIES, BertNetwork
from prefrank.model.deberta import DebertaNetwork
from prefrank.model.encoder import field
from prefrank.model.network import Network, fingerprint, head_parameter_names
from prefrank.model.other import OtherNetwork, load_other
from prefrank.model.quantise import QUANTISED, check_quantised, quantise_network, replaced_weights, stored_precision
from prefrank.model.weights import ALIGNMENT, SINGLE, Weights, read_config, write_tensors
from prefrank.model.weights import QUANTISED as QUANTISED_FILE

__all__ = ["fingerprint", "load_for_scoring", "load_network", "load_quantised", "save_network"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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


def load_for_scoring(folder: Path, *, precision: str | None, device: torch.device | None = None) -> Network:
    """Load a model folder in one of the precisions by name; None is the folder's own: float32, or quantised.

    Raises:
        BadInput: an unknown precision.
        NotFound, BadModel: as `load_network` and `load_quantised`.
    """
    precision = precision or stored_precision(read_config(folder)) or "float32"
    if precision in QUANTISED:
        return load_quantised(folder, precision)
    if precision not in DTYPES:
        raise BadInput(f"there is no precision {precision!r}{suggest(precision, [*DTYPES, *QUANTISED])}")
    return load_network(folder, dtype=DTYPES[precision], device=device)


def load_network(
    folder: Path,
    *,
    new_head: bool = False,
    dropout: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Network:
    """Load a model folder, in evaluation mode.

    Weights that are stored in `dtype` stay in the mapped file (see `weights.py`); training changes them in memory only.

    Args:
        new_head: give the model a new output layer, drawn from torch's default generator with the config's
            initializer_range, whatever it had; a missing pooler is made too. Needed to train from a backbone.
        dropout: replaces every dropout rate of the config; it is not saved.
        dtype: of the weights in memory.

    Raises:
        NotFound: no such folder.
        BadModel: torn or missing files, several outputs, no reward head, quantised weights, or parts that do not fit
            each other.
    """
    raw = read_config(folder)
    device = device or torch.device("cpu")
    if precision := stored_precision(raw):
        raise BadModel(f"{folder} is quantised to {precision}, which only scores; load the float model it came from")
    network = _empty(raw, dropout)
    if network is None:
        return load_other(folder, raw, new_head=new_head, dropout=dropout, dtype=dtype, device=device)
    weights = _stored(folder, network)
    head = _new_head(network, weights.tensors) if new_head else {}
    _check(folder, network, weights.tensors | head)
    tensors = {name: _placed(weights, name, dtype, device) for name in weights.tensors if name not in head}
    tensors |= {name: tensor.to(device, dtype) for name, tensor in head.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def load_quantised(folder: Path, precision: str) -> BertNetwork | DebertaNetwork:
    """Load a folder with integer weights, for scoring on the CPU: a quantised one as it is, a float one by quantising.

    Both give the same network, bit for bit. A float folder is read tensor by tensor and leaves nothing else behind.

    Raises:
        BadInput: an unknown precision.
        NotFound, BadModel: as `load_network`; also a model that does not run on our encoders, weights that are not
            numbers, and a folder that is quantised to another precision.
    """
    check_quantised(precision)
    raw = read_config(folder)
    stored = stored_precision(raw)
    if stored not in (None, precision):
        raise BadModel(f"{folder} is quantised to {stored}; to have {precision}, load the float model it came from")
    network = _empty(
        {key: value for key, value in raw.items() if key != "quantization_config"} if stored else raw, None
    )
    if network is None:
        raise BadModel(f"{folder} holds a {raw['model_type']} model, which cannot be quantised; load it in float32")
    if stored:
        with torch.device("meta"):
            quantise_network(network, precision)  # for the names, shapes and types; there are no numbers yet
        weights = _stored(folder, network, quantised=True)
        _check(folder, network, weights.tensors)
        network.load_state_dict(weights.tensors, assign=True)
    else:
        weights = _stored(folder, network)
        _check(folder, network, weights.tensors)
        replaced = replaced_weights(network)
        cpu = torch.device("cpu")
        tensors = {name: _placed(weights, name, torch.float32, cpu, keep=replaced) for name in weights.tensors}
        network.load_state_dict(tensors, assign=True)
        quantise_network(network, precision, weights.read_once)
    return network.eval()


def save_network(network: Network, folder: Path) -> None:
    """Write config.json and the weights into an existing folder, best one of `atomic_folder`.

    The weights get their name when they are whole: a network may be saved into the folder that it is mapped from.

    Raises:
        OSError: the disk is full, or the folder cannot be written (`atomic_folder` makes it CannotWrite).
    """
    path = folder / "config.json"
    if isinstance(network, OtherNetwork):
        try:
            network.save_weights(folder)
        except SafetensorError as error:
            raise _as_os_error(error) from error
    else:
        name = QUANTISED_FILE if stored_precision(network.config) else SINGLE[0]
        write_tensors(folder / name, network.state_dict())
    path.write_text(json.dumps(_config_to_save(network), indent=2) + "\n", encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # transformers makes files that only their owner can read
        weights.chmod(path.stat().st_mode & 0o777)


class _WithoutValues(TorchFunctionMode):
    """Leaves out torch's initial values: without memory there are none, and drawing them imports torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (init.normal_, init.uniform_, init.kaiming_uniform_):
            return kwargs["tensor"] if kwargs else args[0]
        return func(*args, **(kwargs or {}))


def _empty(raw: Mapping[str, Any], dropout: float | None) -> BertNetwork | DebertaNetwork | None:
    with torch.device("meta"), _WithoutValues():
        return _native(raw, dropout)


def _native(raw: Mapping[str, Any], dropout: float | None) -> BertNetwork | DebertaNetwork | None:
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise BadModel(f"config.json's model_type is {kind!r}; wanted a name such as 'bert' or 'deberta-v2'")
    if raw.get("is_decoder"):
        return None
    if kind in FAMILIES:
        return BertNetwork(raw, dropout=dropout)
    return DebertaNetwork(raw, dropout=dropout) if kind == "deberta-v2" else None


def _stored(folder: Path, network: BertNetwork | DebertaNetwork, *, quantised: bool = False) -> Weights:
    expected = network.state_dict()

    def rename(stored: str) -> str | None:
        name = _modern_name(stored, expected, network.family)
        return name if name in expected or not _LEFT_OUT.search(stored) else None

    return Weights(folder, rename, quantised=quantised)


def _placed(
    weights: Weights, name: str, dtype: torch.dtype, device: torch.device, *, keep: Container[str] = ()
) -> Tensor:
    tensor = weights.tensors[name]
    fits = tensor.dtype == dtype and tensor.device == device and tensor.data_ptr() % ALIGNMENT == 0
    return tensor if fits or name in keep else weights.read_once(name).to(device, dtype, copy=True)


def _modern_name(stored: str, expected: Mapping[str, Tensor], prefix: str) -> str:
    name = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"{prefix}.{name}" if f"{prefix}.{name}" in expected and name not in expected else name


def _new_head(network: BertNetwork | DebertaNetwork, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    spread = field(network.config, "initializer_range", float, 0.02)
    expected = network.state_dict()
    head = {}
    for name in head_parameter_names(network):
        if name not in stored or name.startswith(network.output_layer):
            value = torch.zeros(expected[name].shape)
            head[name] = value.normal_(0.0, spread) if name.endswith("weight") else value
    return head


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
        wanted = expected[name].dtype
        if tensor.dtype != wanted and not (tensor.is_floating_point() and wanted.is_floating_point):
            raise BadModel(f"in {folder} the tensor {name} is of {_said(tensor.dtype)}; wanted {_said(wanted)}")


def _said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


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
        "dtype": _said(dtype),
        "id2label": {"0": "REWARD"},
        "label2id": {"REWARD": 0},
        "problem_type": "regression",
    }
