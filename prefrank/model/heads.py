"""The named outputs of a reward model: what config.json calls them, and taking some of them.

A model with one head gives one score per row, one with H heads gives H. What scores texts (engines, integer weights,
fingerprints) knows one head only, so a scorer's network is cut to it when it is loaded.

Heads are float32, in a network of bfloat16 or float16 too: a score of 8 in bfloat16 has steps of 1/32. What they are
given is widened first, and autocast does not reach them.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.errors import BadInput, BadModel, short
from prefrank.model.network import Network

ONLY_HEAD = "REWARD"
"""The name of a head that has none of its own."""


class HeadLinear(nn.Linear):
    """torch's linear layer in float32 (float64 where weights or input are), whatever its input's type and autocast."""

    @staticmethod
    def of(layer: nn.Linear) -> "HeadLinear":
        """The same layer, with its own weights in float32."""
        with torch.device("meta"):
            made = HeadLinear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        made.weight = nn.Parameter(widened(layer.weight.detach()), requires_grad=layer.weight.requires_grad)
        if layer.bias is not None:
            made.bias = nn.Parameter(widened(layer.bias.detach()), requires_grad=layer.bias.requires_grad)
        return made.train(layer.training)

    def forward(self, x: Float[Tensor, "*m I"]) -> Float[Tensor, "*m O"]:
        with without_autocast(x):
            x, weight = widened(x), widened(self.weight)
            dtype = torch.promote_types(x.dtype, weight.dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            return F.linear(x.to(dtype), weight.to(dtype), bias)


def widened(x: Tensor) -> Tensor:
    """In float32 at least; x itself where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Inside the block autocast is off on the device of x."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def head_names(raw: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of `count` outputs: config.json's id2label if it names so many; else REWARD, or LABEL_0 and up."""
    labels = raw.get("id2label")
    known = labels if isinstance(labels, dict) and len(labels) == count else {}
    names = [str(name) for _, name in sorted(known.items(), key=_number)]
    if count == 1 and names in ([], ["LABEL_0"]):
        return (ONLY_HEAD,)
    if len(names) == len(set(names)) == count:
        return tuple(names)
    return (ONLY_HEAD,) if count == 1 else tuple(f"LABEL_{number}" for number in range(count))


def _number(entry: tuple[str, Any]) -> int:
    place = str(entry[0])
    return int(place) if place.isascii() and place.isdigit() and len(place) < 10 else -1


def check_heads(folder: Path, names: Sequence[str], wanted: Sequence[str] | None, *, ours: bool) -> None:
    """Raise for heads that are not there, and for a classifier of several outputs that are not known to be rewards.

    Args:
        names: of all outputs.
        wanted: those asked for, None where none was named.
        ours: whether prefrank trained them, so that all of them are rewards.
    """
    if wanted is None and len(names) > 1 and not ours:
        raise BadModel(
            f"{folder} holds a classifier with {len(names)} outputs ({_shown(names)}); a reward model has one:"
            " say with head= which one scores"
        )
    for name in wanted or ():
        if name not in names:
            raise BadInput(f"{folder} has no head {short(name)}; wanted one of {_shown(names)}")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def keep_heads(network: Network, heads: Sequence[str]) -> None:
    """Cut the output layer of a network to these of its heads, in this order; what it held is kept (`uncut`)."""
    if tuple(heads) == network.heads:
        return
    output: Any = network.get_submodule(network.output_layer)
    if not network.uncut:
        network.uncut = {
            f"{network.output_layer}.{name}": value.detach() for name, value in output.state_dict().items()
        }
    places = {name: place for place, name in reversed(list(enumerate(network.heads)))}
    rows = torch.tensor([places[name] for name in heads], device=output.weight.device)
    with torch.no_grad():
        output.weight = nn.Parameter(output.weight[rows])
        if output.bias is not None:
            output.bias = nn.Parameter(output.bias[rows])
    output.out_features = len(rows)
    network.heads = tuple(heads)
