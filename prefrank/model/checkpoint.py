"""Model folders in (out: `save.py`): plain `AutoModelForSequenceClassification` folders of transformers.

What stands in the table of families (`families/`) runs on our packed networks and never imports transformers; all
else goes through `OtherNetwork`. The model is built without memory and takes the mapped tensors themselves, so there is
one copy of them, in the file. Only what has to change its type or device is converted, tensor by tensor, and so are
tensors that a file of other programs has at odd places: a score's last bits do not depend on where its weights lie.
Older files are read too: LayerNorm's gamma and beta, backbones without the model's prefix, and backbones that still
carry the head of their pre-training, which is left out.
"""

from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefrank.errors import BadInput, BadModel, short, suggest
from prefrank.io.json_files import Fields
from prefrank.limits import limit, past
from prefrank.model.adapter import apply_adapter, is_adapter, read_adapter, read_whole
from prefrank.model.custom_code import check_code, custom_class
from prefrank.model.empty import empty
from prefrank.model.families import Family, family_of, find_family
from prefrank.model.fit import check_fit, renaming
from prefrank.model.foreign import check_modules, no_head
from prefrank.model.heads import ONLY_HEAD, HeadLinear, check_heads, head_names, keep_heads
from prefrank.model.integer_network import check_integers, quantise_network, replaced_weights
from prefrank.model.integer_weights import QUANTISED, check_quantised, stored_precision
from prefrank.model.network import Network, PackedDecoder, PackedNetwork, as_decoder, head_parameter_names
from prefrank.model.other import load_other
from prefrank.model.record import LAST, RECORD, read_record
from prefrank.model.weights import ALIGNMENT, NARROW, Weights, read_config
from prefrank.model.weights import QUANTISED as QUANTISED_FILE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_for_scoring(
    folder: Path,
    *,
    precision: str | None,
    head: str | None = None,
    device: torch.device | None = None,
    trust_remote_code: bool = False,
) -> Network:
    """Load a model folder in one of the precisions by name; None is the folder's own: float32, or quantized.

    The head is float32 in every precision.

    Args:
        head: the one that scores; by default the first of those that prefrank trained.
        trust_remote_code: run the code that the folder brings, if its model is made of such.

    Raises:
        BadInput: an unknown precision or head.
        NotFound, BadModel: as `load_network` and `load_quantised`.
    """
    whole = not is_adapter(folder)
    precision = precision or (stored_precision(read_config(folder)) if whole else None) or "float32"
    heads = None if head is None else (head,)
    if precision in QUANTISED:
        return load_quantised(folder, precision, heads=heads, trust_remote_code=trust_remote_code)
    if precision not in DTYPES:
        raise BadInput(f"there is no precision {precision!r}{suggest(str(precision), [*DTYPES, *QUANTISED])}")
    network = load_network(
        folder,
        heads=heads,
        dtype=DTYPES[precision],
        device=device,
        trust_remote_code=trust_remote_code,
        keep_narrow=precision == "float32",
    )
    keep_heads(network, network.heads[:1])
    return network


def load_network(
    folder: Path,
    *,
    heads: Sequence[str] | None = None,
    new_head: bool = False,
    dropout: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    trust_remote_code: bool = False,
    keep_narrow: bool = False,
) -> Network:
    """Load a model folder, in evaluation mode, all files of one version though the folder may be replaced meanwhile.

    Weights that are stored in `dtype` stay in the mapped file (see `weights.py`); training changes them in memory only.

    Args:
        heads: names of the outputs to keep, in this order, or to make with `new_head`. By default all that prefrank
            trained, and one for a new head.
        new_head: give the model a new output layer, drawn from torch's default generator with the config's
            initializer_range, whatever it had; a missing pooler is made too. Needed to train from a backbone.
        dropout: replaces every dropout rate of the config; it is not saved.
        dtype: of the weights in memory, but for the head's, which are float32 at least.
        trust_remote_code: run the code that the folder brings, if its model is made of such.
        keep_narrow: on the CPU leave a decoder's bfloat16 and float16 weights as they are, in the mapped file
            (`PackedDecoder.wide`): half the memory and the scores of float32, to the bit; not for training.

    Raises:
        NotFound: no such folder.
        BadInput: a head that the folder does not have.
        BadModel: torn or missing files, several outputs of another program with no word on which, no reward head,
            quantized weights, parts that do not fit each other, or a model of the folder's own code that is not
            trusted.
    """
    load = partial(_load_network, folder, heads, new_head, dropout, dtype, device, trust_remote_code, keep_narrow)
    return read_whole(folder, load)


def _load_network(
    folder: Path,
    heads: Sequence[str] | None,
    new_head: bool,
    dropout: float | None,
    dtype: torch.dtype,
    device: torch.device | None,
    trust_remote_code: bool,
    keep_narrow: bool,
) -> Network:
    device = torch.device("cpu") if device is None or device.type == "cpu" else device  # a core has no number
    if heads is not None and (not heads or len(set(heads)) < len(heads) or "" in heads):
        raise BadInput(f"the heads are {short(list(heads))}; wanted at least one name, and different ones")
    if is_adapter(folder):
        network = _load_adapted(folder, heads, new_head=new_head, dropout=dropout, trust_remote_code=trust_remote_code)
        return _narrowed(network, device, dtype)
    raw = read_config(folder)
    check_code(folder, raw, trust_remote_code=trust_remote_code)
    if not new_head and custom_class(raw) is None:
        check_modules(folder, raw)
    if precision := stored_precision(raw):
        raise BadModel(f"{folder} is quantized to {precision}, which only scores; load the float model it came from")
    family = None if custom_class(raw) else find_family(raw)
    if family is None:
        made = tuple(heads or (ONLY_HEAD,)) if new_head else None
        other = load_other(
            folder,
            raw,
            new_heads=made,
            dropout=dropout,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        _choose_token(folder, other, new_head=new_head)
        _keep(folder, other, heads)
        return other
    stored = Weights(folder)
    network = _empty(family, raw, dropout, len(stored))
    weights = stored.take(renaming(network, new_head=new_head))
    _set_outputs(network, tuple(heads or (ONLY_HEAD,)) if new_head else _stored_heads(folder, network, weights))
    head = _new_head(network, weights.tensors) if new_head else {}
    check_fit(folder, network, weights.tensors | head)
    wide, upper = torch.promote_types(dtype, torch.float32), set(head_parameter_names(network))
    kept = _stay_narrow(network, weights, upper) if keep_narrow and device.type == "cpu" else frozenset[str]()
    tensors = {
        name: _placed(weights, name, wide if name in upper else dtype, device, keep=kept)
        for name in weights.tensors
        if name not in head
    }
    tensors |= {name: tensor.to(device, wide) for name, tensor in head.items()}
    network.load_state_dict(tensors, assign=True)
    _choose_token(folder, network, new_head=new_head)
    _keep(folder, network, heads)
    return network.eval()


def _stay_narrow(network: PackedNetwork, weights: Weights, upper: Container[str]) -> frozenset[str]:
    """Names of a decoder's matrices below its head that are used in the narrow type they are stored in, wherever they
    lie: what multiplies by them widens them first.
    """
    if not isinstance(network, PackedDecoder):
        return frozenset()
    matrices = {name: tensor for name, tensor in weights.tensors.items() if tensor.ndim == 2 and name not in upper}
    kept = frozenset(
        name
        for name, tensor in matrices.items()
        if tensor.dtype in NARROW and tensor.is_contiguous() and tensor.data_ptr() % tensor.itemsize == 0
    )
    network.wide = bool(kept)
    return kept


def load_quantised(
    folder: Path, precision: str, *, heads: Sequence[str] | None = None, trust_remote_code: bool = False
) -> Network:
    """Load a folder with integer weights, for scoring on the CPU: a quantized one as it is, a float one by quantizing.

    Both give the same network, bit for bit. A float folder is read tensor by tensor and leaves nothing else behind.

    Args:
        heads: the one to keep; by default the first of those that prefrank trained.

    Raises:
        BadInput: an unknown precision or head.
        NotFound, BadModel: as `load_network`; also a model that does not run on our encoders, weights that are not
            numbers, and a folder that is quantized to another precision.
    """
    return read_whole(folder, partial(_load_quantised, folder, precision, heads, trust_remote_code))


def _load_quantised(folder: Path, precision: str, heads: Sequence[str] | None, trust_remote_code: bool) -> Network:
    check_quantised(precision)
    if is_adapter(folder):
        return _quantise_adapted(folder, precision, heads)
    raw = read_config(folder)
    check_code(folder, raw, trust_remote_code=trust_remote_code)
    check_modules(folder, raw)
    stored = stored_precision(raw)
    if stored not in (None, precision):
        raise BadModel(f"{folder} is quantized to {stored}; to have {precision}, load the float model it came from")
    family = None if custom_class(raw) else find_family(raw)
    if family is None or family.lay_out is None:
        kind = short(raw["model_type"])
        raise BadModel(f"{folder} holds a {kind} model, which cannot be quantized; load it in float32")
    float_config = {key: value for key, value in raw.items() if key != "quantization_config" or not stored}
    opened = Weights(folder, quantised=stored is not None)
    network = _empty(family, Fields(float_config, raw.file), None, len(opened))
    if stored:
        with torch.device("meta"):
            quantise_network(network, precision)  # for the names, shapes and types; there are no numbers yet
    weights = opened.take(renaming(network))
    _set_outputs(network, _stored_heads(folder, network, weights))
    narrow = _stay_narrow(network, weights, set(head_parameter_names(network)))
    check_fit(folder, network, weights.tensors, exactly=stored is not None, narrow=narrow)
    if stored:
        network.load_state_dict(weights.tensors, assign=True)
        check_integers(network, folder / QUANTISED_FILE)
    else:
        kept = narrow.union(replaced_weights(network))
        cpu = torch.device("cpu")
        tensors = {name: _placed(weights, name, torch.float32, cpu, keep=kept) for name in weights.tensors}
        network.load_state_dict(tensors, assign=True)
        quantise_network(network, precision, weights.read_once)
    _choose_token(folder, network)
    _keep(folder, network, heads)
    keep_heads(network, network.heads[:1])
    return network.eval()


def heads_in(folder: Path) -> tuple[str, ...] | None:
    """Names of the heads that config.json says a model folder has; None where it is not a sequence classifier.

    Of an adapter, those it brings, else its base's.

    Raises:
        NotFound, BadModel: no such folder, torn files, or an adapter whose base is missing.
    """
    if is_adapter(folder):
        adapter = read_adapter(folder)
        if adapter.num_outputs:
            return _adapter_heads(folder, adapter.num_outputs, adapter.base_folder())
        return heads_in(adapter.base_folder())
    config = read_config(folder)
    made = config.texts("architectures", ())
    if not made or not made[0].endswith("ForSequenceClassification"):
        return None
    return head_names(config, len(config.get("id2label") or {0: "", 1: ""}))


def _load_adapted(
    folder: Path,
    heads: Sequence[str] | None,
    *,
    new_head: bool,
    dropout: float | None,
    trust_remote_code: bool,
) -> Any:
    """An adapter merged into its base, in float32 on the CPU; see `load_network`."""
    adapter = read_adapter(folder)
    base, count = adapter.base_folder(), adapter.num_outputs

    def load(heads: Sequence[str] | None, new_head: bool) -> Any:
        return load_network(base, heads=heads, new_head=new_head, dropout=dropout, trust_remote_code=trust_remote_code)

    if new_head or not count:
        network = load(heads if new_head else None, new_head)
    else:
        names = _adapter_heads(folder, count, base)
        with torch.random.fork_rng(devices=[]):  # the head drawn here is replaced by the adapter's: nobody's draws move
            network = load(names, True)
    apply_adapter(network, adapter, keep_output=new_head)
    _choose_token(folder, network, new_head=new_head)
    if not new_head:
        check_heads(folder, network.heads, heads, ours=(folder / RECORD).is_file() or not count)
        keep_heads(network, heads or network.heads)
    return network


def _adapter_heads(folder: Path, count: int, base: Path) -> tuple[str, ...]:
    """Names of the heads that an adapter brings: from its own record, else as its base calls so many."""
    record = read_record(folder)
    if record and record.heads and len(record.heads) != count:
        raise BadModel(
            f"{folder / RECORD} names {len(record.heads)} heads, but the adapter's weights have {count} outputs;"
            " do the files belong together?"
        )
    return record.heads if record and record.heads else head_names({} if is_adapter(base) else read_config(base), count)


def _narrowed(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A float32 network on a device and in a dtype, but for its head."""
    upper = set(head_parameter_names(network))
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(torch.promote_types(dtype, torch.float32) if name in upper else dtype)
    return network.to(device)


def _choose_token(folder: Path, network: Network, *, new_head: bool = False) -> None:
    """Which token a decoder is scored at, and the embeddings without what saving added; see `padding.py`."""
    decoder = as_decoder(network)
    if decoder is None:
        return
    if (record := read_record(folder)) and record.padding_rows:
        decoder.drop_rows(folder, record.padding_rows)
    if new_head or _scores_last(folder):
        decoder.score_last_token()
    else:
        decoder.pass_over_padding()


def _scores_last(folder: Path) -> bool:
    """Whether a folder's decoder is scored at the last token: all that prefrank made, unless its record says that
    padding is passed over, as it is for a plain checkpoint. An adapter without a record goes by its base.
    """
    if (record := read_record(folder)) is not None:
        return record.scored_token == LAST
    return is_adapter(folder) and _scores_last(read_adapter(folder).base_folder())


def _quantise_adapted(folder: Path, precision: str, heads: Sequence[str] | None) -> Network:
    network = load_network(folder, heads=heads)
    family = family_of(network)
    if family is None or family.lay_out is None:
        raise BadModel(f"{folder} changes a model that cannot be quantized; load it in float32")
    keep_heads(network, network.heads[:1])
    quantise_network(network, precision)
    return network


def _empty(family: Family[Any], raw: Fields, dropout: float | None, stored: int) -> PackedNetwork:
    """A network without memory.

    Args:
        stored: tensors in its files, of which each layer has several.
    """
    if raw.integer("num_hidden_layers") > stored:
        raw.refuse("num_hidden_layers", f"a number that fits the weights, which are {stored} tensors")
    with empty(raw.file, stored):
        return family.network(raw, dropout=dropout)


def _stored_heads(folder: Path, network: PackedNetwork, weights: Weights) -> tuple[str, ...]:
    """Names of the outputs that the folder's weights have, whatever its config.json counts."""
    name = f"{network.output_layer}.weight"
    output = weights.tensors.get(name)
    if output is None:
        raise no_head(folder, network.config)
    if output.ndim != 2 or not 1 <= len(output) <= limit("model_parts"):
        raise BadModel(
            f"in {folder} the tensor {name} is {list(output.shape)[:4]}; wanted [outputs, width] of at least one output"
            f" and no {past('model_parts')}"
        )
    return head_names(network.config, len(output))


def _set_outputs(network: PackedNetwork, heads: tuple[str, ...]) -> None:
    """Give a network without memory an output layer for these heads."""
    parent, _, name = network.output_layer.rpartition(".")
    before: Any = network.get_submodule(network.output_layer)
    with torch.device("meta"):
        setattr(
            network.get_submodule(parent),
            name,
            HeadLinear(before.in_features, len(heads), bias=before.bias is not None),
        )
    network.heads = heads


def _keep(folder: Path, network: Network, heads: Sequence[str] | None) -> None:
    check_heads(folder, network.heads, heads, ours=(folder / RECORD).is_file())
    keep_heads(network, heads or network.heads)


def _placed(
    weights: Weights, name: str, dtype: torch.dtype, device: torch.device, *, keep: Container[str] = ()
) -> Tensor:
    tensor = weights.tensors[name]
    fits = tensor.dtype == dtype and tensor.device == device and tensor.data_ptr() % ALIGNMENT == 0
    if (fits and tensor.is_contiguous()) or name in keep:
        return tensor
    return weights.read_once(name).to(device, dtype, copy=True).contiguous()


def _new_head(network: PackedNetwork, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    spread = Fields.of(network.config).number("initializer_range", 0.02, least=0.0)
    expected = network.state_dict()
    head = {}
    for name in head_parameter_names(network):
        if name not in stored or name.startswith(network.output_layer):
            value = torch.zeros(expected[name].shape)
            head[name] = value.normal_(0.0, spread) if name.endswith("weight") else value
    return head
