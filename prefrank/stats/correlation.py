"""Ratios and rank correlations as figures: means of one value for each unit, so that they get intervals and tests.

A figure is a sum of means, and neither a ratio of means nor a correlation is one. Surprising: the values here are the
statistic plus each unit's influence on it (its first-order change when the unit gets a little more weight). Influences
average to zero, so the mean is the statistic, exactly, and its resampled spread is the delta method's. Units of one
prompt stay together as everywhere. A statistic that is not defined is NaN for every unit, so that two scorers' figures
remain of the same units.
"""

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.stats.estimates import Bounds, Figure, Unit, one_mean


def average(
    values: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    *,
    unit: Unit = "items",
    bounds: Bounds | None = None,
) -> Figure:
    """The plain mean of one value for each unit."""
    return one_mean(values, prompts, n=len(values), unit=unit, bounds=bounds)


def undefined(prompts: Int64[np.ndarray, " n"], *, unit: Unit = "items") -> Figure:
    """A figure of these units that has no value."""
    return average(np.full(len(prompts), np.nan), prompts, unit=unit)


def ratio(
    top: Float64[np.ndarray, " n"],
    bottom: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    *,
    unit: Unit = "items",
) -> Figure:
    """mean(top) / mean(bottom); no value where the bottom is zero."""
    if not len(top) or abs(bottom.mean()) < 1e-12:
        return undefined(prompts, unit=unit)
    value = top.mean() / bottom.mean()
    return average(value + (top - value * bottom) / bottom.mean(), prompts, unit=unit)


def spearman(
    x: Float64[np.ndarray, " n"],
    y: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    *,
    unit: Unit = "items",
) -> Figure:
    """Spearman's rank correlation over units, equal values sharing their rank; no value where all x or all y are equal.

    The influence is that of Pearson's correlation of the ranks, and of each unit on the others' ranks (Croux and Dehon
    2010, here for samples with equal values). A value that is not finite leaves no correlation.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return undefined(prompts, unit=unit)
    a, b = _centred_ranks(x), _centred_ranks(y)
    both, spread_a, spread_b = (float((p * q).mean()) if len(x) else 0.0 for p, q in ((a, b), (a, a), (b, b)))
    if spread_a < 1e-12 or spread_b < 1e-12:
        return undefined(prompts, unit=unit)
    change_both = a * b + _above(x, b) + _above(y, a) - 3 * both
    change_a, change_b = (p * p + 2 * _above(z, p) - 3 * s for z, p, s in ((x, a, spread_a), (y, b, spread_b)))
    scale = np.sqrt(spread_a * spread_b)
    value = both / scale
    influence = change_both / scale - value / 2 * (change_a / spread_a + change_b / spread_b)
    return average(value + influence, prompts, unit=unit)


def _centred_ranks(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Share of units below each one, equal ones as half, less a half."""
    return 0.5 - _above(x, np.ones(len(x)))


def _above(x: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """For each unit the summed weight of those above it, equal ones as half, divided by n."""
    order = np.argsort(x)
    summed, ascending = np.concatenate([[0.0], np.cumsum(weights[order])]), x[order]
    below, up_to = summed[np.searchsorted(ascending, x)], summed[np.searchsorted(ascending, x, side="right")]
    return (summed[-1] - (below + up_to) / 2) / max(len(x), 1)


def rank_correlations(x: Float64[np.ndarray, " N"], y: Float64[np.ndarray, " N"]) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's rho of two orders of N things; 0 where all x, or all y, are equal.

    Both are cosines, tau of the signs of all N^2 differences and rho of their sums, the ranks. The signs' products add
    up to twice the pairs in one order less those in opposite orders, which sorting counts (Knight 1966).
    """
    places = [np.unique(z, return_inverse=True)[1] for z in (x, y)]
    x_place, y_place = places
    in_both = np.unique(x_place * len(x) + y_place, return_inverse=True)[1]
    both = len(x) ** 2 - _equals(x_place) - _equals(y_place) + _equals(in_both)
    opposite = _inversions(y_place[np.lexsort((y_place, x_place))])
    scale = np.sqrt(float(len(x) ** 2 - _equals(x_place)) * float(len(x) ** 2 - _equals(y_place)))
    tau = (both - 4 * opposite) / scale if scale > 0 else 0.0
    return float(tau), _cosine(*(_rank_sums(place) for place in places))


def _equals(place: Int64[np.ndarray, " N"]) -> int:
    """Ordered pairs of equal ones, each with itself too."""
    counts = np.bincount(place)
    return int(counts @ counts)


def _rank_sums(place: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """How many are below each one, less how many are above."""
    counts = np.bincount(place)
    up_to = np.cumsum(counts)
    return (2 * up_to - counts - len(place))[place].astype(np.float64)


def _inversions(values: Int64[np.ndarray, " N"]) -> int:
    """Pairs of which the first is the larger, counted as merging does, all merges of one width at once."""
    at, width, found = np.arange(len(values)), 1, 0
    while width < len(values):
        right, block = at // width % 2, at // (2 * width)
        order = np.lexsort((right, values, block))
        passed = np.cumsum(right[order])
        before = np.maximum.accumulate(np.where(np.diff(block[order], prepend=-1) > 0, passed - right[order], 0))
        found += int(((passed - before) * (1 - right[order])).sum())
        width *= 2
    return found


def _cosine(a: Float64[np.ndarray, "..."], b: Float64[np.ndarray, "..."]) -> float:
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0
