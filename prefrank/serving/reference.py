"""What served scores are compared with: those of the training record, or where it has none the first that were served.

The comparison is the population stability index over bins of the reference, sum of (p - q) ln(p / q), and how far the
mean has moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput
from prefrank.io.json_files import Fields

LEAST = 200
"""Scores that a reference, and what is compared with it, need: of fewer, the index is mostly chance."""
FIRST = 1_000
"""Scores that make a reference where training left none."""
_MOST_EDGES = 1_000
"""That a record may have."""
_LEAST_SHARE = 0.05
"""Of the reference in each bin: neighbors with less are one."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Scores that others are compared with.

    Args:
        kind: "training" for held-out replies when the model was trained, "first_1000" for the first that were served.
        n: scores.
        mean, std: of them; where training's record gives them, from its bins.
        edges: [E] of bins; the first and the last bin are open.
        counts: [E + 1] scores in each bin; a score at an edge is in the bin above.
    """

    kind: Literal["training", "first_1000"]
    n: int
    mean: float
    std: float
    edges: Float64[np.ndarray, " E"]
    counts: Int64[np.ndarray, " E1"]

    def bins(self, scores: Float64[np.ndarray, " N"]) -> Int64[np.ndarray, " E1"]:
        """How many of these scores lie in each bin."""
        return np.bincount(np.searchsorted(self.edges, scores, side="right"), minlength=len(self.edges) + 1)

    def stability_index(self, counts: Int64[np.ndarray, " E1"]) -> float:
        """The population stability index of these counts; each bin has half a score more, so that none is empty."""
        p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (counts, self.counts))
        return float(((p - q) * np.log(p / q)).sum())

    def by_chance(self, n: int) -> float:
        """The index that n scores have on average when nothing has changed."""
        return len(self.edges) * (1 / n + 1 / self.n)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Of the training record: as `training.records.score_record` writes it."""

    edges: Float64[np.ndarray, " E"]
    counts: Int64[np.ndarray, " E1"]


def histogram_of(training: Mapping[str, Any] | None, head: str) -> tuple[Histogram | None, str]:
    """The histogram of a head's scores in a model's training record; otherwise why there is none."""
    if training is None:
        return None, "the model has no training record"
    try:
        scores = Fields.of(dict(training)).object("scores", None)
        heads = scores.object("heads") if scores is not None else None
        if heads is None or head not in heads:
            return None, "the training record has no scores"
        stored = heads.object(head).object("histogram")
        edges = np.array([float(edge) for edge in stored["edges"]], np.float64)
        counts = np.array([int(count) for count in stored["counts"]], np.int64)
    except (BadInput, TypeError, ValueError, KeyError, OverflowError):
        return None, "the training record's histogram of scores cannot be read"
    fits = len(counts) == len(edges) + 1 and np.isfinite(edges).all() and (np.diff(edges) > 0).all()
    if not fits or len(edges) > _MOST_EDGES or (counts < 0).any():
        return None, "the training record's histogram of scores cannot be read"
    if counts.sum() < LEAST or len(edges) < 2:
        return None, f"the training record has {counts.sum()} scores, too few to compare with"
    return Histogram(edges, counts), ""


def of_training(histogram: Histogram) -> Reference:
    """The reference that a training record's histogram makes; its mean and deviation are those of the bins' middles,
    and a score in an open bin counts as one width beyond the edge.
    """
    edges, counts = histogram.edges, histogram.counts
    n = int(counts.sum())
    middles = np.concatenate([[2 * edges[0] - edges[1]], (edges[:-1] + edges[1:]) / 2, [2 * edges[-1] - edges[-2]]])
    mean = float(counts @ middles) / n
    std = float(np.sqrt(counts @ (middles - mean) ** 2 / (n - 1)))
    return Reference("training", n, mean, std, *_merged(edges, counts))


def of_first(scores: Float64[np.ndarray, " N"]) -> Reference:
    """The reference that served scores make, with bins of a tenth each."""
    edges = np.unique(np.quantile(scores, np.arange(1, 10) / 10))
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
    return Reference("first_1000", len(scores), float(scores.mean()), float(scores.std(ddof=1)), edges, counts)


def _merged(
    edges: Float64[np.ndarray, " E"], counts: Int64[np.ndarray, " E1"]
) -> tuple[Float64[np.ndarray, " e"], Int64[np.ndarray, " e1"]]:
    """The same with neighboring bins together, until each has its least share."""
    least = _LEAST_SHARE * counts.sum()
    kept_edges: list[float] = []
    kept: list[int] = []
    held = 0
    for place, count in enumerate(counts.tolist()):
        held += count
        if held >= least and place < len(edges):
            kept.append(held)
            kept_edges.append(float(edges[place]))
            held = 0
    if held < least and kept:  # what is left over at the top is too little for a bin of its own
        held += kept.pop()
        kept_edges.pop()
    return np.array(kept_edges, np.float64), np.array([*kept, held], np.int64)
