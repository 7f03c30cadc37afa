"""Integer weights for a whole network: the linear layers inside its layers are replaced one by one, in memory.

What integers stand for is in `integer_weights.py`. Which networks can be quantized is the table's word (`families/`):
those that the native kernels run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefrank.errors import BadModel, short
from prefrank.model.families import family_of
from prefrank.model.integer_weights import (
    FixedPositions,
    QuantisedLinear,
    check_finite,
    check_quantised,
    largest_position,
    quantise_weight,
    stored_precision,
)
from prefrank.model.network import Network, layer_of


def replaced_weights(network: Network) -> list[str]:
    """Names of the float weights that quantizing replaces, from below: linear layers, own position projections."""
    return [
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and layer_of(f"{name}.weight") is not None
    ]


def quantise_network(network: Network, precision: str, read: Callable[[str], Tensor] | None = None) -> None:
    """Replace the linear layers inside a network's layers, one by one.

    Args:
        read: gives a weight by its name, in any float type, and need not keep it; by default the network's own.

    Raises:
        BadInput: an unknown precision.
        BadModel: weights that are quantized already, or not numbers, or a family that cannot be quantized.
    """
    check_quantised(precision)
    if before := stored_precision(network.config):
        raise BadModel(f"the model is quantized to {before} already; quantize the float model it came from")
    family = family_of(network)
    if family is None or family.lay_out is None:
        raise BadModel(f"a {short(network.config['model_type'])} model cannot be quantized; load it in float32")
    read = read or network.state_dict().__getitem__
    with torch.no_grad():
        if family.fix_positions is not None:
            family.fix_positions(network, read)
        for weight in replaced_weights(network):
            name = weight.removesuffix(".weight")
            parent, _, child = name.rpartition(".")
            bias: Any = network.get_submodule(name).bias
            integers, scales = quantise_weight(read(weight), precision)
            check_finite(scales, weight)
            setattr(network.get_submodule(parent), child, QuantisedLinear(integers, scales, bias))
    network.config["quantization_config"] = {"quant_method": "prefrank", "precision": precision}


def check_integers(network: Network, path: Path) -> None:
    """See that the stored integers and scales of a network are such as `quantise_network` makes.

    Raises:
        BadModel: a scale that is not a number of at least 0, or positions with which a sum may overflow.
    """
    for name, module in network.named_modules():
        if isinstance(module, QuantisedLinear):
            scale = module.weight_scale
        elif isinstance(module, FixedPositions):
            scale, table = module.projected_scale, module.projected
            if max(int(table.amax()), -int(table.amin())) > largest_position(table.shape[1] // scale.shape[1]):
                raise BadModel(f"{path}: the tensor {name}.projected has larger integers than prefrank writes")
        else:
            continue
        if not (scale.isfinite() & (scale >= 0)).all():
            raise BadModel(
                f"{path}: the scales of {name} hold NaN, infinite or negative ones; quantize the model again"
            )
