"""What benchmarks' figures are built from: a credit for each item, and means of credits over items and subsets."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from prefrank.evaluation.samples import Sample, wins
from prefrank.stats.figures import Figure, mean_figure, mean_of

Ties = Literal["half", "wrong"]
"""What equal scores on an untied preference count for: half a win, or nothing."""

ACCURACY, MACRO_MEAN = "Accuracy", "Macro mean"


def credits(sample: Sample, ties: Ties) -> Float64[np.ndarray, " C"]:
    """Each item's wins over its untied preferences, averaged by their weights; NaN for an item without one."""
    pairs, size = sample.pairs, len(sample.facts)
    weight = np.where(pairs.decided, pairs.weight, 0.0)
    mass = np.bincount(pairs.comparison, weight, size)
    total = np.bincount(pairs.comparison, weight * wins(sample.margin, 0.5 if ties == "half" else 0.0), size)
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), np.nan)


def subsets_of(sample: Sample) -> tuple[str, ...]:
    """In order of first appearance."""
    return tuple(dict.fromkeys(facts.subset for facts in sample.facts))


def in_subset(sample: Sample, *subsets: str) -> Bool[np.ndarray, " C"]:
    return np.array([facts.subset in subsets for facts in sample.facts], bool)


def mean_over(sample: Sample, values: Float64[np.ndarray, " C"], places: Bool[np.ndarray, " C"]) -> Figure:
    """The mean of the items at these places that have a value."""
    kept = places & ~np.isnan(values)
    return mean_figure(values[kept], sample.pairs.prompt[kept])


def pairwise(sample: Sample, *, headline: str = ACCURACY, ties: Ties = "half") -> dict[str, Figure]:
    """Accuracy over all items ("Accuracy"), the unweighted mean over subsets ("Macro mean"), and that of each subset.

    Args:
        headline: which of the two comes first.
        ties: what equal scores count for.
    """
    values = credits(sample, ties)
    each = {name: mean_over(sample, values, in_subset(sample, name)) for name in subsets_of(sample)}
    both = {ACCURACY: mean_over(sample, values, np.ones(len(values), bool)), MACRO_MEAN: mean_of(each.values())}
    return {headline: both[headline]} | both | each
