"""Ranks of values that have weights and equals: below a value stand the lesser ones, and half of its equals.

Values are given as places among their D distinct ones, 0 the least, so that one sorting serves many figures.
"""

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from prefrank.stats.arrays import in_blocks


def below(mass: Shaped[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
    """The mass below each distinct value, with half of its own, given the mass of each, ascending."""
    return np.cumsum(mass) - mass / 2


def above(mass: Shaped[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
    """The mass above each distinct value, with half of its own."""
    return mass.sum() - np.cumsum(mass) + mass / 2


def mid_ranks(values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Ranks from ½; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return below(counts)[place]


def dense(place: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The same order as 0, 1, ..., none left out."""
    return (np.cumsum(np.bincount(place) > 0) - 1)[place]


def ranks_in_groups(values: Float64[np.ndarray, " N"], group: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Mid-ranks inside each group, less their mean."""
    order = np.lexsort((values, group))
    ordered = values[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]  # a difference may be too large
    new |= np.diff(group[order], prepend=-1) != 0
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    ranks = below(np.bincount(place))[place]
    return ranks - (np.bincount(group, ranks) / np.bincount(group))[group]


def spearman_in_groups(
    x: Float64[np.ndarray, " N"], y: Float64[np.ndarray, " N"], group: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, " G"]:
    """Spearman's correlation in each group; 0 where x does not vary, NaN where y does not."""
    x_ranks, y_ranks = ranks_in_groups(x, group), ranks_in_groups(y, group)
    both, x_spread, y_spread = (
        np.bincount(group, a * b) for a, b in ((x_ranks, y_ranks), (x_ranks, x_ranks), (y_ranks, y_ranks))
    )
    rho = both / np.sqrt(np.where(x_spread * y_spread > 0, x_spread * y_spread, 1.0))
    return np.where(y_spread > 0, rho, np.nan)


def auroc(
    right: Float64[np.ndarray, " P"], weight: Float64[np.ndarray, " P"], place: Int64[np.ndarray, " P"]
) -> Float64[np.ndarray, " P"] | None:
    """P(a right one stands higher than a wrong one), equals half, plus the influence of each; their mean is it.

    Args:
        right: from 0 to 1; what is half right is half of a wrong one too.
        place: of each among the distinct values.

    Returns:
        None where nothing is right or nothing is wrong.
    """
    good, bad = weight * right, weight * (1 - right)
    all_good, all_bad = good.sum(), bad.sum()
    both = all_good * all_bad
    if not both > 0:
        return None
    wrong, fine = np.bincount(place, bad), np.bincount(place, good)
    worse, better = below(wrong), all_good - np.cumsum(fine) + fine / 2
    value = 0.0
    for block in in_blocks(len(good)):
        value += good[block] @ worse[place[block]]
    value /= both
    values, mass = np.empty(len(good)), weight.sum()
    for block in in_blocks(len(good)):
        own, at = right[block], place[block]
        slope = own * worse[at] + (1 - own) * better[at]
        influence = (slope - value * (own * all_bad + (1 - own) * all_good)) / both
        values[block] = value + mass * influence
    return values
