"""Integer weights for an encoder's linear layers, and what it means to multiply by them.

The query, key, value, output, up and down matrices of every layer become int16 or int8 with one scale per output;
embeddings, norms, convolution and head stay float32. Activations are made integers token by token when a layer runs,
so a product is an exact sum of integers times two scales.

int16: a sum of products must stay below 2^31. By Cauchy-Schwarz it does where |a||w| does, for any input and any order
of adding, so every row of weights gets the Euclidean norm 2^15.5 and every token's activations what is left of 2^31:
the two sides then round equally finely, whatever their width K or the shape of their distribution, at an error of
sqrt(K / 6) / 2^15.5 of a typical output. Measured on rows of Gaussian weights, in parts per 10,000: 1.7 at K = 384, 2.4
at 768, 3.5 at 1536, 4.9 at 3072, 6.9 at 6144, the same for Gaussian, log-normal and half-zero activations, and 2.0,
2.6, 3.8, 5.6, 7.4 with three channels a hundred times larger. Giving every row the same largest value instead is up
to twice as coarse, because |w| then differs from row to row and the longest row decides for all: with 4,095 levels
2.4, 2.8, 3.9, 6.2, 10.9, and on Student-t (4) weights 4.6, 5.7, 6.3, 8.3, 10.5.

int8: the largest weight of a row, and of a token, is 127. No sum of fewer than 130,000 products can overflow.

Surprising: DeBERTa's relative positions go through the float32 key and query matrices that are replaced here, so their
projections are computed first and kept (`FixedPositions`), as int16 in either precision.
"""

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int16
from torch import Tensor, nn

from prefrank.errors import BadInput, BadModel, short, suggest
from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.disentangled import DisentangledAttention

QUANTISED = ("int16", "int8")
WEIGHT_NORM = 2**15.5
SUM_LIMIT = 2_147_000_000  # of 2^31 - 1; the rest is for float32's rounding of norms and scales
_BLOCK_ROWS = 128
_PAGE = 4096
_OWN_PAGES = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Windows has no such flags: there a mapping without a file is the process's own."""
_DTYPES = {"int16": torch.int16, "int8": torch.int8}
_LARGEST_WEIGHT = {"int16": 32_767, "int8": 127}
_LARGEST_ACTIVATION = {torch.int16: 32_000, torch.int8: 127}


class QuantisedLinear(nn.Module):
    """x W^T + b with integer weights [O, I] that stand for `weight * weight_scale[:, None]`.

    The forward pass is what the kernels' products are held against: the same integers, added in float64, which holds
    every sum exactly. It is slow.
    """

    def __init__(self, weight: Tensor, weight_scale: Float[Tensor, " O"], bias: Float[Tensor, " O"] | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(weight_scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        weight = self.weight.double()
        integers, scale = quantise_rows(x, self.weight)
        y = (integers @ weight.mT) * scale * self.weight_scale
        return (y if self.bias is None else y + self.bias).to(x.dtype)


class FixedPositions(nn.Module):
    """Stands in for a projection of DeBERTa's relative embeddings: the result, whatever it is given.

    Integers [S, D] with a scale for each row and head: what the kernels' attention multiplies, in either precision.
    """

    def __init__(self, projected: Int16[Tensor, "S D"], projected_scale: Float[Tensor, "S H"]) -> None:
        super().__init__()
        self.projected = nn.Parameter(projected, requires_grad=False)
        self.projected_scale = nn.Parameter(projected_scale, requires_grad=False)

    def forward(self, table: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
        return table_in_float(self.projected, self.projected_scale)


def quantise_table(table: Float32[Tensor, "S D"], num_heads: int) -> tuple[Int16[Tensor, "S D"], Float[Tensor, "S H"]]:
    """Relative embeddings as integers, a scale for each row and head. Of a meta tensor, shapes alone.

    A head's queries (or keys) of width d are multiplied by them; where the entries of both are at most sqrt(2^31 / d),
    no sum of d products can overflow.
    """
    integers = _apart(table, table.shape, torch.int16)
    scale = _apart(table, (len(table), num_heads), torch.float32)
    if not table.is_meta:
        heads = table.view(*scale.shape, -1)
        largest = _largest_position(heads.shape[-1])
        scale.copy_(torch.maximum(heads.amax(-1), -heads.amin(-1)) / largest)
        room = _apart(table, heads.shape, torch.float32).copy_(heads)
        integers.copy_(room.div_(_divisor(scale)).round_().clamp_(-largest, largest).flatten(1))
    return integers, scale


def table_in_float(table: Int16[Tensor, "S D"], scale: Float[Tensor, "S H"]) -> Float[Tensor, "S D"]:
    """The relative embeddings that the integers stand for."""
    return (table.view(*scale.shape, -1) * scale[..., None]).flatten(1)


def quantise_weight(weight: Float[Tensor, "O I"], precision: str) -> tuple[Tensor, Float32[Tensor, " O"]]:
    """Integers [O, I] and their scales, row by row; rows of zeros have the scale 0. Of a meta tensor, shapes alone.

    A row with an entry that is no number has a scale that is none.
    """
    integers = _apart(weight, weight.shape, _DTYPES[precision])
    scales = _apart(weight, weight.shape[:1], torch.float32)
    room = _apart(weight, (_BLOCK_ROWS, weight.shape[1]), torch.float32)
    largest = _LARGEST_WEIGHT[precision]
    for start in range(0, 0 if weight.is_meta else len(weight), _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, len(weight)))
        block = room[: rows.stop - start].copy_(weight[rows])
        peak = block.abs_().amax(1)
        scale = peak / largest
        if precision == "int16":
            norm = torch.linalg.vector_norm(block.div_(_divisor(peak)), dim=1) * peak
            scale = torch.maximum(scale, norm / WEIGHT_NORM)
        scales[rows] = scale
        integers[rows] = block.copy_(weight[rows]).div_(_divisor(scale)).round_().clamp_(-largest, largest)
    return integers, scales


def _divisor(scale: Float[Tensor, " *O"]) -> Float[Tensor, "*O 1"]:
    return torch.where(scale == 0, 1.0, scale)[..., None]


def _apart(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory outside the heap, where tensors that stay among large ones that go would leave holes: aligned requests do
    not fill holes of their own size, and a model would take twice its own.
    """
    size = math.prod(shape) * dtype.itemsize
    if like.is_meta or size < _PAGE:
        return like.new_empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size, **_OWN_PAGES), dtype=dtype).view(shape)


def quantise_rows(x: Float[Tensor, "M I"], weight: Tensor) -> tuple[Float64[Tensor, "M I"], Float64[Tensor, "M 1"]]:
    """Each row of activations as integers, scaled so that no sum of their products with `weight` can overflow.

    Returns:
        The integers, as float64, and their scales: x is about integers * scale.
    """
    rows = x.double()
    ratio = _LARGEST_ACTIVATION[weight.dtype] / rows.abs().amax(1, keepdim=True)
    if weight.dtype == torch.int16:
        longest = torch.linalg.vector_norm(weight.double(), dim=1).max()
        # Rounding moves each of the K entries by up to one half, and so the norm by up to half of sqrt(K).
        norm = SUM_LIMIT / longest - 0.5 * x.shape[1] ** 0.5 - 1
        ratio = torch.minimum(ratio, norm / torch.linalg.vector_norm(rows, dim=1, keepdim=True))
    ratio = torch.where(rows.abs().amax(1, keepdim=True) > 0, ratio, 1.0)
    return (rows * ratio).round(), 1 / ratio


def stored_precision(config: Mapping[str, Any]) -> str | None:
    """The precision of a quantised folder or network, from its config.json; None for float weights.

    Raises:
        BadModel: one that this version does not know.
    """
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") != "prefrank":
        return None
    precision = settings.get("precision")
    if not isinstance(precision, str) or precision not in QUANTISED:
        raise BadModel(
            f"config.json's quantization_config.precision is {short(precision)}, this prefrank reads"
            f" {' and '.join(QUANTISED)}; update prefrank, or quantise the float model again"
        )
    return precision


def check_quantised(precision: str) -> None:
    """Raise BadInput for a name that is not a precision of integer weights."""
    if not isinstance(precision, str) or precision not in QUANTISED:
        raise BadInput(f"{short(precision)} is not a precision to quantise to{suggest(str(precision), QUANTISED)}")


def replaced_weights(network: BertNetwork | DebertaNetwork) -> list[str]:
    """Names of the float weights that quantising replaces, from below: linear layers, own position projections."""
    return [
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and ".encoder.layer." in name
    ]


def quantise_network(
    network: BertNetwork | DebertaNetwork, precision: str, read: Callable[[str], Tensor] | None = None
) -> None:
    """Replace the linear layers of a network's encoder, one by one.

    Args:
        read: gives a weight by its name, in any float type, and need not keep it; by default the network's own.

    Raises:
        BadInput: an unknown precision.
        BadModel: weights that are quantised already, or not numbers.
    """
    check_quantised(precision)
    if before := stored_precision(network.config):
        raise BadModel(f"the model is quantised to {before} already; quantise the float model it came from")
    read = read or network.state_dict().__getitem__
    with torch.no_grad():
        if isinstance(network, DebertaNetwork):
            _fix_positions(network, read)
        for weight in replaced_weights(network):
            name = weight.removesuffix(".weight")
            parent, _, child = name.rpartition(".")
            bias: Any = network.get_submodule(name).bias
            integers, scales = quantise_weight(read(weight), precision)
            _check_finite(scales, weight)
            setattr(network.get_submodule(parent), child, QuantisedLinear(integers, scales, bias))
    network.config["quantization_config"] = {"quant_method": "prefrank", "precision": precision}


def check_integers(network: BertNetwork | DebertaNetwork, path: Path) -> None:
    """See that the stored integers and scales of a network are such as `quantise_network` makes.

    Raises:
        BadModel: a scale that is no number of at least 0, or positions with which a sum may overflow.
    """
    for name, module in network.named_modules():
        if isinstance(module, QuantisedLinear):
            scale = module.weight_scale
        elif isinstance(module, FixedPositions):
            scale, table = module.projected_scale, module.projected
            if max(int(table.amax()), -int(table.amin())) > _largest_position(table.shape[1] // scale.shape[1]):
                raise BadModel(f"{path}: the tensor {name}.projected has larger integers than prefrank writes")
        else:
            continue
        if not (scale.isfinite() & (scale >= 0)).all():
            raise BadModel(
                f"{path}: the scales of {name} hold NaN, infinite or negative ones; quantise the model again"
            )


def _largest_position(width: int) -> int:
    """Of the integers of relative positions, for heads of this width."""
    return min(_LARGEST_WEIGHT["int16"], math.floor(math.sqrt(SUM_LIMIT / width)) - 1)


def _check_finite(values: Tensor, name: str) -> None:
    if not values.is_meta and not values.isfinite().all():
        raise BadModel(f"the tensor {name} has entries that are NaN or infinite; the weights are not usable")


def _fix_positions(network: DebertaNetwork, read: Callable[[str], Tensor]) -> None:
    encoder = network.deberta.encoder
    if encoder.rel_embeddings is None:
        return
    table = encoder.rel_embeddings.weight
    if encoder.LayerNorm is not None and not table.is_meta:
        table = encoder.LayerNorm(table)
    for name, attention in list(network.named_modules()):
        if not isinstance(attention, DisentangledAttention):
            continue
        for term, own, shared in (("c2p", "pos_key_proj", "key_proj"), ("p2c", "pos_query_proj", "query_proj")):
            if term in attention.terms:
                used = shared if getattr(attention, own) is None else own
                projected = _apart(table, table.shape, torch.float32)
                if not table.is_meta:  # layers that run without numbers make torch import its compiler
                    weight, bias = read(f"{name}.{used}.weight").float(), getattr(attention, used).bias
                    torch.addmm(bias, table, weight.mT, out=projected)
                integers, scales = quantise_table(projected, attention.num_heads)
                _check_finite(scales, f"{name}.{used}.weight")
                setattr(attention, own, FixedPositions(integers, scales))
