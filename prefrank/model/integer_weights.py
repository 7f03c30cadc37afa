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

DeBERTa's relative positions go through the float32 key and query matrices that are replaced, so their projections are
computed first and kept (`FixedPositions`), as int16 in either precision.
"""

import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int16
from torch import Tensor, nn

from prefrank.errors import BadInput, BadModel, short, suggest

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
    integers = outside_heap(table, table.shape, torch.int16)
    scale = outside_heap(table, (len(table), num_heads), torch.float32)
    if not table.is_meta:
        heads = table.view(*scale.shape, -1)
        largest = largest_position(heads.shape[-1])
        scale.copy_(torch.maximum(heads.amax(-1), -heads.amin(-1)) / largest)
        room = outside_heap(table, heads.shape, torch.float32).copy_(heads)
        integers.copy_(room.div_(_divisor(scale)).round_().clamp_(-largest, largest).flatten(1))
    return integers, scale


def table_in_float(table: Int16[Tensor, "S D"], scale: Float[Tensor, "S H"]) -> Float[Tensor, "S D"]:
    """The relative embeddings that the integers stand for."""
    return (table.view(*scale.shape, -1) * scale[..., None]).flatten(1)


def quantise_weight(weight: Float[Tensor, "O I"], precision: str) -> tuple[Tensor, Float32[Tensor, " O"]]:
    """Integers [O, I] and their scales, row by row; rows of zeros have the scale 0. Of a meta tensor, shapes alone.

    A row with an entry that is no number has a scale that is none.
    """
    integers = outside_heap(weight, weight.shape, _DTYPES[precision])
    scales = outside_heap(weight, weight.shape[:1], torch.float32)
    room = outside_heap(weight, (_BLOCK_ROWS, weight.shape[1]), torch.float32)
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


def outside_heap(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
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
    """The precision of a quantized folder or network, from its config.json; None for float weights.

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
            f" {' and '.join(QUANTISED)}; update prefrank, or quantize the float model again"
        )
    return precision


def check_quantised(precision: str) -> None:
    """Raise BadInput for a name that is not a precision of integer weights."""
    if not isinstance(precision, str) or precision not in QUANTISED:
        raise BadInput(f"{short(precision)} is not a precision to quantize to{suggest(str(precision), QUANTISED)}")


def check_finite(values: Tensor, name: str) -> None:
    """Raise BadModel for weights with an entry that is no number."""
    if not values.is_meta and not values.isfinite().all():
        raise BadModel(f"the tensor {name} has entries that are NaN or infinite; the weights are not usable")


def largest_position(width: int) -> int:
    """Of the integers of relative positions, for heads of this width."""
    return min(_LARGEST_WEIGHT["int16"], math.floor(math.sqrt(SUM_LIMIT / width)) - 1)
