"""The memory of a run on devices that are not here, from config.json and the recipe alone: one model, several layouts.

Activations are measured on small relatives of the model (activations.py), for the largest micro-batch that the recipe
allows: `max_tokens` of rows of `max_length`, which share nothing. The rest are numbers of parameters. What the layouts
add is by rule, and they are called as in the recipe's `sharding`:

- none: everything on every device.
- full (FSDP2): weights, gradients, optimizer state and averages in shards. Gathered at one time: what stands outside
  the layers, two layers (the one at work and the one fetched ahead), and one layer's gradient.
- zero2: gradients and optimizer state in shards, and DeepSpeed's own copy of the trained weights; weights whole, and
  the gradient of one layer before it is added up over devices.
- zero3: as full, with that copy. No averages with either.

While a layer is at work, two float32 tensors of its width stand beside the activations, two of its attention's scores
where those are no single kernel's, and two of its feed-forward's width where that has a gate; with checkpointing also
all that the layer keeps or, at the end of the forward pass, autocast's copies of the trained matrices.
Not counted: what kernels and collectives take for themselves (CUDA, cuBLAS and NCCL: about 1 to 2 GB; DeepSpeed's
buckets of 5e8 numbers: 2 GB each), holes between tensors, what micro-batches of a step share (relative positions: up to
2 % of a peak with checkpointing), and copies of keys and values of prompts that a decoder's rows share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from prefrank.model import Network, parameters_by_depth
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.model.families.mpnet import MPNetNetwork
from prefrank.training.foresight.activations import kept_bytes, without_weights
from prefrank.training.foresight.memory import Memory, average_bytes, optimizer_bytes, size_of
from prefrank.training.recipe import MAX_LENGTH, Recipe

Layout = Literal["none", "full", "zero2", "zero3"]


@dataclass(frozen=True, slots=True)
class LayoutForecast:
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


def forecast_layouts(
    config: Mapping[str, Any], recipe: Recipe, *, devices: int, steps: int = 1_000_000
) -> list[LayoutForecast]:
    """The memory of a run on GPUs, in every layout, without and with gradient checkpointing; [] for other models.

    Args:
        config: the model's raw config.json.
        recipe: in bfloat16 autocast unless its `bf16` is False, as on GPUs that have it.
        devices: that share it.
        steps: of the run: no more snapshots are averaged than evaluations make.

    Raises:
        BadModel: a config.json that cannot be used.
        BadRecipe: layers or modules of the recipe that the model does not have.
    """
    network = without_weights(config, recipe)
    if network is None:
        return []
    layouts: list[Layout] = ["none"]
    if devices > 1:
        layouts += ["full"] if recipe.ema_decay or recipe.average_last else ["full", "zero2", "zero3"]
    rows, length = largest_micro_batch(recipe)
    kept, layer = kept_bytes(config, recipe, rows=rows, length=length, checkpointing=False)
    few, _ = kept_bytes(config, recipe, rows=rows, length=length, checkpointing=True)
    scores = config["num_attention_heads"] * length if isinstance(network, DebertaNetwork | MPNetNetwork) else 0
    gate = network.spec.feed_forward_width if isinstance(network, DecoderNetwork) else 0
    at_work = 2 * 4 * rows * length * (config["hidden_size"] + scores + gate)
    passes = {False: (kept, at_work), True: (few, at_work + max(layer, _autocast_copies(network, recipe)))}
    return [
        LayoutForecast(layout, devices, checkpointing, _memory(network, recipe, layout, devices, *sizes, steps=steps))
        for checkpointing, sizes in passes.items()
        for layout in layouts
    ]


def largest_micro_batch(recipe: Recipe) -> tuple[int, int]:
    """Rows and their length: rows of `max_length`, as many as `max_tokens` takes, at least one."""
    length = recipe.max_length or MAX_LENGTH
    return max(1, recipe.max_tokens // length), length


def _memory(
    network: Network, recipe: Recipe, layout: Layout, devices: int, activations: int, temporary: int, *, steps: int
) -> Memory:
    """What one device holds in a layout, given what passes over the whole model take."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    weights, gradients = size_of(network.parameters()), size_of(trained)
    states = optimizer_bytes(trained, recipe)
    averages = average_bytes(trained, recipe, steps=steps)
    if layout != "none":
        layer, outside = _units(network)
        states += gradients if layout.startswith("zero") else 0
        gradients, states, averages = (-(-size // devices) for size in (gradients, states, averages))
        temporary += layer
        if layout != "zero2":
            temporary += outside + 2 * layer
            weights = -(-weights // devices)
    peak = weights + gradients + states + averages + activations + temporary
    return Memory(0, weights, gradients, states, averages, activations, temporary, peak, measured=False)


def _units(network: Network) -> tuple[int, int]:
    """Bytes of the largest layer, and of all that stands outside the layers: what is gathered as one."""
    parameters: dict[str, nn.Parameter] = dict(network.named_parameters())
    sizes = [size_of(parameters[name] for name in names) for names in parameters_by_depth(network)]
    return max(sizes[1:-1]), sizes[0] + sizes[-1]


def _autocast_copies(network: Network, recipe: Recipe) -> int:
    """Bytes of the trained matrices in bfloat16, which autocast keeps until the forward pass is over."""
    parameters = dict(network.named_parameters())
    matrices = [parameters[name] for names in parameters_by_depth(network)[1:-1] for name in names]
    trained = sum(matrix.numel() for matrix in matrices if matrix.requires_grad and matrix.ndim > 1)
    return 0 if recipe.bf16 is False else 2 * trained
