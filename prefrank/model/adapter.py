"""LoRA adapters in peft's own folders, read without peft: a base model, low-rank changes to it, and a head.

    W' = W + scale B A, with B [O, r], A [r, I] and scale alpha / r (Hu et al. 2021, arXiv 2106.09685, section 4.1),
    or alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732) where adapter_config.json says use_rslora

What loads here is the merged model, which scores like any other. The base is found by the name in adapter_config.json.
A prefrank.json beside it carries text settings and names of heads; the tokenizer is the base's where the adapter has
none of its own.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prefrank.errors import BadModel, NotFound
from prefrank.io.json_files import read_object
from prefrank.model.hub import resolve_model
from prefrank.model.network import Network
from prefrank.model.other import OtherNetwork

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""Of every name in an adapter's file: peft's wrapper around transformers' model."""
_UNKNOWN = ("use_dora", "lora_bias", "alpha_pattern", "rank_pattern", "layer_replication", "target_parameters")
"""Settings of peft that change the sum above, where they are not empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter folder as it was read.

    Args:
        base: folder, hub id or name of the model it changes.
        scale: what B A is multiplied with.
        transposed: whether the changed matrices are stored as [I, O], as GPT-2's are.
        factors: module -> (A, B).
        replaced: parameters that it brings whole: the head.
    """

    folder: Path
    base: str
    scale: float
    transposed: bool
    factors: Mapping[str, tuple[Float[Tensor, "r I"], Float[Tensor, "O r"]]]
    replaced: Mapping[str, Tensor]

    @property
    def num_outputs(self) -> int:
        """Of the head that it brings, 0 where it brings none: no matrix of a head has fewer rows than its last."""
        return min((len(tensor) for tensor in self.replaced.values() if tensor.ndim == 2), default=0)

    def base_folder(self) -> Path:
        """The folder of the base model.

        Raises:
            NotFound: it is not there.
        """
        try:
            return resolve_model(self.base)
        except NotFound as error:
            raise NotFound(
                f"{self.folder} changes the model {self.base!r}, which is missing ({error}); put it there, or change"
                f" base_model_name_or_path in {CONFIG}"
            ) from error


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def text_folder(folder: Path) -> Path:
    """Where a model's tokenizer is: its own folder, or the base's of an adapter that has none."""
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return folder if own or not is_adapter(folder) else text_folder(read_adapter(folder).base_folder())


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        BadModel: torn or missing files, or a kind of adapter that is more than B A and a head.
    """
    try:
        config = read_object(folder / CONFIG)
        tensors = load_file(folder / WEIGHTS)
        kind, base, rank, alpha = (config[key] for key in ("peft_type", "base_model_name_or_path", "r", "lora_alpha"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadModel(f"the adapter in {folder} cannot be read ({error!r}); copy or download it again") from error
    extra = [key for key in _UNKNOWN if config.get(key)]
    if kind != "LORA" or extra:
        what = f"has {', '.join(extra)}" if extra else f"is of the kind {kind!r}"
        raise BadModel(f"the adapter in {folder} {what}, which is not read here; merge it with peft first")
    if not isinstance(base, str):
        raise BadModel(f"{folder / CONFIG} names no base_model_name_or_path; write the base model's folder or id there")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    factors, replaced = _split(folder, tensors)
    return Adapter(folder, base, scale, bool(config.get("fan_in_fan_out")), factors, replaced)


def _split(folder: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Pairs of factors by module, and the parameters that come whole."""
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    first, second = ".lora_A.weight", ".lora_B.weight"
    modules = [name.removesuffix(first) for name in named if name.endswith(first)]
    replaced = {name: tensor for name, tensor in named.items() if not name.endswith((first, second))}
    try:
        factors = {module: (named[module + first], named[module + second]) for module in modules}
    except KeyError as error:
        raise BadModel(f"the adapter in {folder} lacks {error.args[0]}; copy or download it again") from None
    unknown = sorted(name for name in replaced if ".lora_" in name)
    if unknown or 2 * len(factors) + len(replaced) != len(named):
        raise BadModel(f"the adapter in {folder} holds {(unknown or sorted(named))[0]}, which is not read here")
    return factors, replaced


def apply_adapter(network: Network, adapter: Adapter, *, keep_output: bool = False) -> None:
    """Merge an adapter into its base, in memory.

    Args:
        keep_output: leave the output layer as it is.

    Raises:
        BadModel: a name or shape that the base does not have.
    """
    own = dict(network.named_parameters())
    prefix = "model." if isinstance(network, OtherNetwork) else ""
    for module, (a, b) in adapter.factors.items():
        weight = _own(own, f"{prefix}{module}.weight", adapter)
        change = low_rank(a.to(weight.device), b.to(weight.device), adapter.scale)
        # peft sets its switch back for each plain linear layer of a model that has both kinds
        plain = isinstance(network.get_submodule(f"{prefix}{module}"), nn.Linear)
        changed = change.T if adapter.transposed and not plain else change
        _assign(weight, weight.detach() + _fit(changed, weight, module, adapter))
    for name, tensor in adapter.replaced.items():
        if not (keep_output and f"{prefix}{name}".startswith(f"{network.output_layer}.")):
            parameter = _own(own, f"{prefix}{name}", adapter)
            _assign(parameter, _fit(tensor, parameter, name, adapter).to(parameter.device, parameter.dtype))


def low_rank(a: Float[Tensor, "r I"], b: Float[Tensor, "O r"], scale: float) -> Float[Tensor, "O I"]:
    """scale B A."""
    return (b @ a) * scale


def _own(own: Mapping[str, nn.Parameter], name: str, adapter: Adapter) -> nn.Parameter:
    if name not in own:
        raise BadModel(f"the adapter in {adapter.folder} changes {name}, which its base {adapter.base} does not have")
    return own[name]


def _fit(tensor: Tensor, parameter: Tensor, name: str, adapter: Adapter) -> Tensor:
    if tensor.shape != parameter.shape:
        shapes = f"{list(tensor.shape)}, in its base {adapter.base} {list(parameter.shape)}"
        raise BadModel(f"in the adapter in {adapter.folder} the tensor {name} is {shapes}")
    return tensor


def _assign(parameter: nn.Parameter, value: Tensor) -> None:
    """New memory, so that the mapped file of the base stays as it is."""
    parameter.data = value


def adapted_modules(network: Network) -> dict[str, Any]:
    """peft's layers in a network that trains LoRA, by name; empty for every other network."""
    ends = ".lora_A.default.weight"
    names = [name.removesuffix(ends) for name, _ in network.named_parameters() if name.endswith(ends)]
    return {name: network.get_submodule(name) for name in names}


@contextmanager
def merged(network: Network) -> Iterator[None]:
    """Inside the block a network that trains LoRA is a plain one with merged weights, its own bits again after it.

    Takes the memory of the changed matrices once more. Nothing happens to other networks.
    """
    adapted = adapted_modules(network)
    before: dict[str, nn.Parameter] = {}
    try:
        for name, module in adapted.items():
            plain = module.base_layer
            before[name] = plain.weight
            factors = module.lora_A["default"].weight, module.lora_B["default"].weight
            with torch.no_grad():
                change = low_rank(*factors, module.scaling["default"])
                weight = plain.weight + (change.T if module.fan_in_fan_out else change)
            plain.weight = nn.Parameter(weight, requires_grad=False)
            _place(network, name, plain)
        yield
    finally:
        for name, weight in before.items():
            adapted[name].base_layer.weight = weight
            _place(network, name, adapted[name])


def _place(network: Network, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def adapter_tensors(network: Network, head: list[str]) -> dict[str, Tensor]:
    """What an adapter's file holds of a network that trains LoRA: factors and head, by peft's names.

    Args:
        head: names of the head's parameters.
    """
    own = dict(network.named_parameters())
    names = [name for name in own if ".lora_A." in name or ".lora_B." in name] + head
    return {_file_name(network, name): own[name].detach() for name in names}


def _file_name(network: Network, name: str) -> str:
    """The name in an adapter's file of a parameter of a network that trains LoRA."""
    inner = name.removeprefix("model.") if isinstance(network, OtherNetwork) else name
    return _PREFIX + inner.replace(".default.weight", ".weight")
