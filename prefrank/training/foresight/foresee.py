"""The memory of a run on devices that are not here, from config.json and the recipe alone: one model, several layouts.

Surprising: neither weights nor a GPU are needed. Activations are counted on the meta device (memory.py) for the largest
micro-batch that the recipe allows, `max_tokens` of rows of `max_length`; the rest are numbers of parameters. What the
layouts add is by rule, and they are called as in the recipe's `sharding`:

- none: everything on every device.
- full (FSDP2): weights, gradients, optimiser state and averages in shards. Gathered at one time: what stands outside
  the layers, two layers (the one at work and the one fetched ahead), and one layer's gradient.
- zero2: gradients and optimiser state in shards, and DeepSpeed's own copy of the trained weights; weights whole, and
  the gradient of one layer before it is added up over devices.
- zero3: as full, with that copy. No averages with either.

An update takes as much again as the largest of the optimiser's groups, since torch's AdamW works on lists on a GPU.
Not counted: what kernels and collectives take for themselves (CUDA, cuBLAS and NCCL: about 1 to 2 GB;
DeepSpeed's buckets of 5e8 numbers: 2 GB each), and holes between tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from prefrank.io.json_files import Fields
from prefrank.model import Network, parameters_by_depth
from prefrank.model.families import find_family
from prefrank.model.network import PackedNetwork
from prefrank.training.foresight.memory import Memory, Passes, average_bytes, count_passes, optimizer_bytes, size_of
from prefrank.training.loop.lora import add_adapters
from prefrank.training.loop.optim import freeze, parameter_groups
from prefrank.training.recipe import MAX_LENGTH, Recipe
from prefrank.types import Batch

Layout = Literal["none", "full", "zero2", "zero3"]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What one device needs in one layout.

    Args:
        layout: what is in shards, as the recipe's `sharding` calls it.
        devices: that share the run.
        checkpointing: whether layers are computed again in the backward pass.
        memory: of one device.
    """

    layout: Layout
    devices: int
    checkpointing: bool
    memory: Memory


def foresee(
    config: Mapping[str, Any], recipe: Recipe, *, devices: int, steps: int = 1_000_000, bf16: bool = True
) -> list[Foreseen]:
    """The memory of a run on several GPUs, in every layout, without and with gradient checkpointing.

    Args:
        config: the model's raw config.json.
        devices: that share it.
        steps: of the run: no more snapshots are averaged than evaluations make.
        bf16: whether it runs in bfloat16 autocast, as `bf16: auto` does on GPUs that have it.

    Raises:
        BadModel: a config.json that cannot be used.
        BadRecipe: layers or modules of the recipe that the model does not have.
    """
    found = []
    for checkpointing in (False, True):
        network = without_weights(config, recipe)
        if network is None:
            return []
        network.gradient_checkpointing = checkpointing
        averaged = recipe.ema_decay or recipe.average_last
        layouts: list[Layout] = ["none"]
        if devices > 1:
            layouts += ["full"] if averaged else ["full", "zero2", "zero3"]
        batch, whole = largest_batch(recipe), [True, False] if devices > 1 else [True]
        passes = {sharing: count_passes(network, batch, bf16=bf16, sharing=sharing) for sharing in whole}
        for layout in layouts:
            memory = _of_layout(network, recipe, layout, devices, passes[layout == "none"], steps=steps)
            found.append(Foreseen(layout, devices, checkpointing, memory))
    return found


def without_weights(config: Mapping[str, Any], recipe: Recipe) -> PackedNetwork | None:
    """The network a recipe trains, on the meta device, with what it freezes; None if transformers would run it."""
    family = find_family(Fields.of(config))
    if family is None:
        return None
    with torch.device("meta"):
        network = family.network(config, dropout=recipe.dropout)
    freeze(network, recipe)
    if recipe.lora_rank:
        add_adapters(network, recipe)
    return network


def largest_batch(recipe: Recipe) -> Batch:
    """The largest micro-batch a recipe allows: rows of `max_length`, as many as `max_tokens` takes, at least one."""
    length = recipe.max_length or MAX_LENGTH
    rows = max(1, recipe.max_tokens // length)
    return Batch(
        ids=np.zeros(rows * length, np.int64),
        starts=length * np.arange(rows + 1),
        types=np.zeros(rows * length, np.int8),
        rows=np.arange(rows),
    )


def _of_layout(
    network: PackedNetwork, recipe: Recipe, layout: Layout, devices: int, passes: Passes, *, steps: int
) -> Memory:
    """What one device holds in a layout, given what passes over the whole model take."""
    trained = [p for p in network.parameters() if p.requires_grad]
    weights, gradients = size_of(network.parameters()), size_of(trained)
    states = optimizer_bytes(trained, recipe)
    averages = average_bytes(trained, recipe, steps=steps)
    passing = passes.peak - gradients  # the count holds all gradients from the start
    groups = parameter_groups(network, recipe)
    update = max(size_of(one["params"]) for one in groups) if recipe.optimizer == "adamw" else 0
    gathered = 0
    if layout != "none":
        layer, outside = _units(network)
        states += gradients if layout.startswith("zero") else 0
        gradients, states, averages, update = (-(-n // devices) for n in (gradients, states, averages, update))
        gathered = layer
        if layout != "zero2":
            gathered += outside + 2 * layer
            weights = -(-weights // devices)
    temporary = max(passing - passes.activations + gathered, update)
    peak = weights + gradients + states + averages + max(passing + gathered, update)
    return Memory(0, weights, gradients, states, averages, passes.activations, temporary, peak, measured=False)


def _units(network: Network) -> tuple[int, int]:
    """Bytes of the largest layer, and of all that stands outside the layers: what is gathered as one."""
    parameters: dict[str, nn.Parameter] = dict(network.named_parameters())
    sizes = [size_of(parameters[name] for name in names) for names in parameters_by_depth(network)]
    return max(sizes[1:-1]), sizes[0] + sizes[-1]
