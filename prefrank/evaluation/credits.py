"""What benchmarks' figures are built from: a credit for each item, means over items, and weighted sums of those.

`combine` keeps a figure's parts apart, so that a section score is resampled as the sum of means that it is. Nothing is
made from less than a protocol asks for: a sum with a part missing has no value, it is not a sum over the rest.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.evaluation.items import Sample
from prefrank.stats.estimates import Bounds, Figure, Unit, one_mean

Ties = Literal["half", "wrong"]
"""What equal scores on an untied preference count for: half a win, or nothing."""

ACCURACY, MACRO_MEAN = "Accuracy", "Macro mean"


def wins(sample: Sample, ties: Ties) -> Float64[np.ndarray, " P"]:
    """1 for a preference whose better reply leads; equal scores by the rule; a failed score is a loss."""
    return (sample.lead > 0) + (0.5 if ties == "half" else 0.0) * (sample.lead == 0)


def credits(sample: Sample, ties: Ties) -> Float64[np.ndarray, " C"]:
    """Each item's wins over its untied preferences, averaged by their weights; NaN for an item without one."""
    pairs, size = sample.pairs, len(sample.facts)
    weight = np.where(pairs.decided, pairs.weight, 0.0)
    mass = np.bincount(pairs.comparison, weight, size)
    total = np.bincount(pairs.comparison, weight * wins(sample, ties), size)
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), np.nan)


def subsets_of(sample: Sample) -> tuple[str, ...]:
    """In order of first appearance."""
    return tuple(dict.fromkeys(facts.subset for facts in sample.facts))


def in_subset(sample: Sample, *subsets: str) -> Bool[np.ndarray, " C"]:
    return np.array([facts.subset in subsets for facts in sample.facts], bool)


def mean_figure(
    values: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    *,
    unit: Unit = "items",
    bounds: Bounds | None = (0.0, 1.0),
) -> Figure:
    """The plain mean of one value for each item; without items there is nothing to measure."""
    return one_mean(values, prompts, n=len(values), unit=unit, bounds=bounds)


def mean_over(sample: Sample, values: Float64[np.ndarray, " C"], places: Bool[np.ndarray, " C"]) -> Figure:
    """The mean of the items at these places that have a value."""
    kept = places & ~np.isnan(values)
    return mean_figure(values[kept], sample.pairs.prompt[kept])


def combine(terms: Iterable[tuple[float, Figure]]) -> Figure:
    """The sum of coefficient times figure; without a value where one of them has none.

    >>> combine([(1.0, Figure((), 0, "items"))]).parts
    ()
    """
    terms = tuple(terms)
    complete = bool(terms) and all(figure.parts for _, figure in terms)
    parts = tuple(
        replace(part, coefficient=coefficient * part.coefficient)
        for coefficient, figure in terms
        for part in figure.parts
    )
    ends = [sorted((c * low, c * high)) for c, figure in terms for low, high in [figure.bounds or (-np.inf, np.inf)]]
    # Rounded, so that thirds add up to one.
    low, high = (round(float(sum(end)), 12) for end in zip(*ends, strict=True)) if ends else (0.0, 1.0)
    bounds = (low, high) if np.isfinite((low, high)).all() else None
    unit = terms[0][1].unit if terms else "items"
    return Figure(parts if complete else (), sum(figure.n for _, figure in terms), unit, bounds)


def mean_of(figures: Iterable[Figure]) -> Figure:
    """The unweighted mean of figures."""
    figures = tuple(figures)
    return combine((1 / len(figures), figure) for figure in figures)


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
