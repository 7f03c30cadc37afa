"""How far apart two tokens of a row are, and which row of a table of relative positions that distance reads.

The bucket function is odd and its rounding is float32's, on the CPU, so that every device agrees with the training of
the published checkpoints. Rows may be longer than the relative range: the last bucket is used.
"""

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

    def rows(self, longest: int) -> Int64[Tensor, " R"]:
        """Rows of the table for the distances from -longest to longest, on the CPU."""
        distances = torch.arange(-longest, longest + 1)
        if self.buckets:
            distances = bucket(distances, buckets=self.buckets, max_distance=self.max_distance)
        return (distances + self.span).clamp(0, 2 * self.span - 1)


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
