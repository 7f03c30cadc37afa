"""LoRA adapters in peft's own folders, read without peft: a base model, low-rank changes to it, and a head.

    W' = W + scale B A, with B [O, r], A [r, I] and scale alpha / r (Hu et al. 2021, arXiv 2106.09685, section 4.1),
    or alpha / sqrt(r) (Kalajdzievski 2023, arXiv 2312.03732) where adapter_config.json says use_rslora

What loads here is the merged model, which scores like any other. The base is found by the name in adapter_config.json.
A prefrank.json beside it carries text settings and names of heads; the tokenizer is the base's where the adapter has
none of its own.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefrank.errors import BadModel, NotFound, short
from prefrank.io.json_files import read_fields
from prefrank.io.pinned import read_as_one
from prefrank.limits import limit, past
from prefrank.model.hub import resolve_model
from prefrank.model.network import Network, outer_name
from prefrank.model.weights import open_safetensors

Value = TypeVar("Value")
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
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
        """Outputs of the head that the adapter brings, 0 if none: no matrix of a head has fewer rows than its last."""
        return min((len(tensor) for tensor in self.replaced.values() if tensor.ndim == 2), default=0)

    def base_folder(self) -> Path:
        """The folder of the base model.

        Raises:
            NotFound: it is not there.
            BadModel: a base that is changed by adapters in a circle, or by more than a few.
        """
        try:
            base = resolve_model(self.base)
        except NotFound as error:
            raise NotFound(
                f"{self.folder} changes the model {self.base!r}, which is missing ({error}); put it there, or change"
                f" base_model_name_or_path in {CONFIG}"
            ) from error
        _check_chain(self.folder, base)
        return base


_MOST_ADAPTERS = 8
"""One on the other."""


def _check_chain(folder: Path, base: Path) -> None:
    """Raise BadModel where the base of an adapter's base leads back, or the chain is longer than anybody's."""
    seen = [os.path.realpath(folder)]
    while is_adapter(base):
        if os.path.realpath(base) in seen:
            raise BadModel(
                f"the adapter in {folder} is in the end based on itself; write the model that it changes as"
                f" base_model_name_or_path in its {CONFIG}"
            )
        seen.append(os.path.realpath(base))
        if len(seen) > _MOST_ADAPTERS:
            raise BadModel(f"the adapter in {folder} stands on {_MOST_ADAPTERS} others; merge some of them first")
        base = resolve_model(read_fields(base / CONFIG).text("base_model_name_or_path"))


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no whole model."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def read_whole(folder: Path, read: Callable[[], Value]) -> Value:
    """What `read` makes of a model folder, all files of one version though another process may replace it meanwhile; of
    an adapter, its base's files too.

    Raises:
        BadModel: it changed at every try.
        PrefrankError: as `read`.
    """

    if folder in _READING.get():  # whoever reads more of it looks at all of it
        return read()

    def of_base() -> Value:
        if not is_adapter(folder):
            return read()
        base = read_fields(folder / CONFIG).text("base_model_name_or_path")
        adapter = Adapter(folder, base, 1.0, False, {}, {})
        return read_whole(adapter.base_folder(), read)

    outside = _READING.set(_READING.get() | {folder})
    try:
        return read_as_one(folder, of_base)
    finally:
        _READING.reset(outside)


_READING: ContextVar[frozenset[Path]] = ContextVar("folders that are read as one", default=frozenset())


def text_folder(folder: Path) -> Path:
    """Where a model's tokenizer is: its own folder, or the base's of an adapter that has none."""
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return folder if own or not is_adapter(folder) else text_folder(read_adapter(folder).base_folder())


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        BadModel: torn or missing files, or a kind of adapter that is more than B A and a head.
    """
    config = read_fields(folder / CONFIG)
    kind = config.text("peft_type")
    extra = [key for key in _UNKNOWN if config.get(key)]
    if kind != "LORA" or extra:
        what = f"has {', '.join(extra)}" if extra else f"is of the kind {short(kind)}"
        raise BadModel(f"the adapter in {folder} {what}, which is not read here; merge it with peft first")
    rank = config.integer("r", least=1, most=1 << 20)
    alpha = config.number("lora_alpha")
    if alpha <= 0:
        config.refuse("lora_alpha", "a number above 0")
    base = config.text("base_model_name_or_path")
    scale = alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)
    transposed = config.flag("fan_in_fan_out", False)
    factors, replaced = _split(folder, open_safetensors(folder / WEIGHTS), rank)
    return Adapter(folder, base, scale, transposed, factors, replaced)


def _split(
    folder: Path, tensors: Mapping[str, Tensor], rank: int
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
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
    for name, tensor in named.items():
        if tensor.dtype not in _FLOATS or not tensor.numel():
            what = f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            raise BadModel(f"in the adapter in {folder} the tensor {name} is {what}; wanted floats of 16 bits or more")
    outputs = [len(tensor) for name, tensor in replaced.items() if tensor.ndim and ".embed" not in name]
    if max(outputs, default=0) > limit("model_parts"):
        raise BadModel(f"the adapter in {folder} has a head of {past('model_parts')}")
    for module, (a, b) in factors.items():
        if a.ndim != 2 or b.ndim != 2 or not a.shape[0] == b.shape[1] == rank:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise BadModel(
                f"in the adapter in {folder} the factors of {module} are {shapes}; wanted [{rank}, inputs] and"
                f" [outputs, {rank}], as r in {CONFIG} says"
            )
    return factors, replaced


def apply_adapter(network: Network, adapter: Adapter, *, keep_output: bool = False) -> None:
    """Merge an adapter into its base, in memory.

    Args:
        keep_output: leave the output layer as it is.

    Raises:
        BadModel: a name or shape that the base does not have.
    """
    own = dict(network.named_parameters())
    prefix = outer_name(network)
    for module, (a, b) in adapter.factors.items():
        weight = _own(own, f"{prefix}{module}.weight", adapter)
        change = low_rank(a.to(weight.device), b.to(weight.device), adapter.scale)
        # peft sets its switch back for each plain linear layer of a model that has both kinds
        plain = isinstance(network.get_submodule(f"{prefix}{module}"), nn.Linear)
        shape = (b.shape[0], a.shape[1])
        _fit(shape if plain or not adapter.transposed else shape[::-1], weight, module, adapter)  # before it is made
        changed = change.T if adapter.transposed and not plain else change
        _assign(weight, weight.detach() + changed)
    for name, tensor in adapter.replaced.items():
        if not (keep_output and f"{prefix}{name}".startswith(f"{network.output_layer}.")):
            parameter = _own(own, f"{prefix}{name}", adapter)
            _fit(tensor.shape, parameter, name, adapter)
            _assign(parameter, tensor.to(parameter.device, parameter.dtype))


def low_rank(a: Float[Tensor, "r I"], b: Float[Tensor, "O r"], scale: float) -> Float[Tensor, "O I"]:
    """scale B A."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return (b.to(dtype) @ a.to(dtype)) * scale


def _own(own: Mapping[str, nn.Parameter], name: str, adapter: Adapter) -> nn.Parameter:
    if name not in own:
        raise BadModel(f"the adapter in {adapter.folder} changes {name}, which its base {adapter.base} does not have")
    return own[name]


def _fit(shape: Sequence[int], parameter: nn.Parameter, name: str, adapter: Adapter) -> None:
    """Raise BadModel for a tensor that does not have its base's shape."""
    if tuple(shape) != tuple(parameter.shape):
        shapes = f"{list(shape)}, in its base {adapter.base} {list(parameter.shape)}"
        raise BadModel(f"in the adapter in {adapter.folder} the tensor {name} is {shapes}; do they belong together?")


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
    return _PREFIX + name.removeprefix(outer_name(network)).replace(".default.weight", ".weight")
