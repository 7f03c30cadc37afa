"""The named outputs of a reward model: what config.json calls them, and taking some of them.

A model with one head gives one score per row, one with H heads gives H. What scores texts (engines, integer weights,
fingerprints) knows one head only, so a scorer's network is cut to it when it is loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefrank.errors import BadInput, BadModel
from prefrank.model.network import Network

ONLY_HEAD = "REWARD"
"""The name of a head that has none of its own."""


def head_names(raw: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of `count` outputs: config.json's id2label if it names so many; else REWARD, or LABEL_0 and up."""
    labels = raw.get("id2label")
    names = [str(name) for _, name in sorted(labels.items(), key=_number)] if isinstance(labels, dict) else []
    if count == 1 and names in ([], ["LABEL_0"]):
        return (ONLY_HEAD,)
    if len(names) == len(set(names)) == count:
        return tuple(names)
    return (ONLY_HEAD,) if count == 1 else tuple(f"LABEL_{number}" for number in range(count))


def _number(entry: tuple[str, Any]) -> int:
    return int(entry[0]) if str(entry[0]).isdigit() else -1


def check_heads(folder: Path, names: Sequence[str], wanted: Sequence[str] | None, *, ours: bool) -> None:
    """Raise for heads that are not there, and for a classifier of several outputs that nobody calls reward heads.

    Args:
        names: of all outputs.
        wanted: those asked for, None where none was named.
        ours: whether prefrank trained them, so that all of them are rewards.
    """
    if wanted is None and len(names) > 1 and not ours:
        raise BadModel(
            f"{folder} holds a classifier with {len(names)} outputs ({', '.join(names)}); a reward model has one:"
            " say with head= which one scores"
        )
    for name in wanted or ():
        if name not in names:
            raise BadInput(f"{folder} has no head {name!r}; wanted one of {', '.join(names)}")


def keep_heads(network: Network, heads: Sequence[str]) -> None:
    """Cut the output layer of a network to these of its heads, in this order."""
    if tuple(heads) == network.heads:
        return
    output: Any = network.get_submodule(network.output_layer)
    rows = torch.tensor([network.heads.index(name) for name in heads], device=output.weight.device)
    with torch.no_grad():
        output.weight = nn.Parameter(output.weight[rows])
        if output.bias is not None:
            output.bias = nn.Parameter(output.bias[rows])
    output.out_features = len(rows)
    network.heads = tuple(heads)
