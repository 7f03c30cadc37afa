"""How far apart two tokens of a row are, and which row of a table of relative positions that distance reads.

The rounding of buckets is float32's, on the CPU, so that every device agrees with the training of the published
checkpoints. Rows may be longer than the relative range: the last bucket is used.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Distances:
    """DeBERTa's relative positions: which row of the relative table a distance between two tokens reads.

    Args:
        span: largest bucket; the table has 2 x span rows.
        buckets: number of log buckets, 0 for none.
        max_distance: where the log buckets end.
    """

    span: int
    buckets: int
    max_distance: int

    @property
    def size(self) -> int:
        """Rows of the table."""
        return 2 * self.span

    def rows(self, longest: int) -> Int64[Tensor, " R"]:
        """Rows of the table for the distances, query minus key, from -longest to longest, on the CPU."""
        distances = torch.arange(-longest, longest + 1)
        if self.buckets:
            distances = bucket(distances, buckets=self.buckets, max_distance=self.max_distance)
        return (distances + self.span).clamp(0, 2 * self.span - 1)


@dataclass(frozen=True, slots=True)
class Buckets:
    """T5's relative positions, which MPNet has: which row of a table of biases a distance between two tokens reads.

    Args:
        count: rows of the table: half of them for keys before the query and at its place, half for keys after it. Of
            each half, half are for one distance each, and half for distances in log steps.
        max_distance: where the log steps end.
    """

    count: int
    max_distance: int

    @property
    def size(self) -> int:
        """Rows of the table."""
        return self.count

    def rows(self, longest: int) -> Int64[Tensor, " R"]:
        """Rows of the table for the distances, query minus key, from -longest to longest, on the CPU.

        From `_relative_position_bucket` of google-research/text-to-text-transfer-transformer (Raffel et al. 2020, T5,
        section 2.1). The order of operations is that of transformers' MPNet: rounding decides where a log step begins.
        """
        distances = torch.arange(-longest, longest + 1)
        half, size = self.count // 2, distances.abs()
        exact = half // 2
        steps = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        far = (exact + steps.long()).clamp(max=half - 1)
        return torch.where(size < exact, size, far) + half * (distances < 0)


def bucket(distances: Int64[Tensor, " R"], *, buckets: int, max_distance: int) -> Int64[Tensor, " R"]:
    """Distances as they are up to buckets / 2, then in log steps that reach buckets - 1 at max_distance - 1.

    From `make_log_bucket_position` of microsoft/DeBERTa (DeBERTa/deberta/da_utils.py).
    """
    half = buckets // 2
    ratio = distances.abs().clamp(min=half).float() / half
    steps = torch.log(ratio) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    far = distances.sign() * (torch.ceil(steps) + half)
    return torch.where(distances.abs() <= half, distances, far.long())


def skew(by_distance: Float[Tensor, "n H a w"], width: int) -> Float[Tensor, "n H a b"]:
    """Row r of [a, a + width] from column a - 1 - r on: out[r, c] = x[r, a - 1 - r + c], as a view."""
    rows = by_distance.shape[-2]
    start, stride = rows - 1, rows + width - 1
    return by_distance.flatten(-2).narrow(-1, start, rows * stride).unflatten(-1, (rows, stride))[..., :width]
