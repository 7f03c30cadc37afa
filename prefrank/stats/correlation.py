"""Correlations: Pearson's and Spearman's with each unit's influence on them, and Kendall's tau-b of whole orders.

scipy's have neither weights nor clusters. Of plain orders ours equal scipy's, which the base install does not have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from prefrank.stats.figures import Figure, mean_figure, undefined
from prefrank.stats.ranks import above, below, mid_ranks


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Covariance and the two variances of n weighted pairs of values.

    Args:
        changes: how each pair changes the three; a function, for not every caller asks.
    """

    covariance: float
    first: float
    second: float
    changes: Callable[[], tuple[Float64[np.ndarray, " n"], ...]]

    @property
    def correlation(self) -> float | None:
        """None where the two vary by less than a product of numbers can tell."""
        if not self.first * self.second > 0:
            return None
        return float(np.clip(self.covariance / math.sqrt(self.first * self.second), -1.0, 1.0))

    def influence(self, correlation: float) -> Float64[np.ndarray, " n"]:
        """First-order change of the correlation when a pair gets a little more weight."""
        both, first, second = self.changes()
        scale = math.sqrt(self.first * self.second)
        return both / scale - correlation / 2 * (first / self.first + second / self.second)


def plain_moments(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], share: Float64[np.ndarray, " n"]
) -> Moments:
    """Of the values themselves: Pearson's.

    Args:
        share: [n] weights that add up to 1.
    """
    x, y = x - share @ x, y - share @ y
    covariance, first, second = (float(share @ (a * b)) for a, b in ((x, y), (x, x), (y, y)))
    return Moments(covariance, first, second, lambda: (x * y - covariance, x * x - first, y * y - second))


def rank_moments(i: Int64[np.ndarray, " n"], j: Int64[np.ndarray, " n"], share: Float64[np.ndarray, " n"]) -> Moments:
    """Of mid-ranks u(x) = P(X < x) + P(X = x) / 2, whose mean is 1/2 always: Spearman's.

    The mean of u v is a V-statistic of three pairs, so a pair's influence is its place among the products, and what it
    adds to the ranks of all that are above it in x and in y (Croux and Dehon 2010, here with equal values).

    Args:
        i, j: [n] places among the distinct values of x and of y.
    """
    u, v = below(np.bincount(i, share))[i], below(np.bincount(j, share))[j]

    def change(a: np.ndarray, b: np.ndarray, over_a: np.ndarray, over_b: np.ndarray) -> np.ndarray:
        higher = above(np.bincount(over_a, share * b))[over_a]
        return a * b + higher + above(np.bincount(over_b, share * a))[over_b] - 3 * float(share @ (a * b))

    covariance, first, second = (float(share @ (a * b)) - 0.25 for a, b in ((u, v), (u, u), (v, v)))
    return Moments(covariance, first, second, lambda: (change(u, v, i, j), change(u, u, i, i), change(v, v, j, j)))


def spearman(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], prompts: Int64[np.ndarray, " n"]) -> Figure:
    """Spearman's correlation over items as a figure; no value where all x or all y are equal, or one is not finite."""
    if not (len(x) and np.isfinite(x).all() and np.isfinite(y).all()):
        return undefined(prompts)
    i, j = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    moments = rank_moments(i, j, np.full(len(x), 1 / len(x)))
    rho = moments.correlation
    if rho is None or min(moments.first, moments.second) < 1e-12:
        return undefined(prompts)
    return mean_figure(rho + moments.influence(rho), prompts, bounds=None)


def pearson(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> float | None:
    """Pearson's correlation; None where one of the two is the same everywhere."""
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    return float((dx * dy).sum() / math.sqrt((dx * dx).sum() * (dy * dy).sum()))


def rank_correlation(x: Shaped[np.ndarray, " n"], y: Shaped[np.ndarray, " n"]) -> float | None:
    """Spearman's correlation; None where one of the two is the same everywhere."""
    return pearson(mid_ranks(x), mid_ranks(y))


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
    return float(tau), rank_correlation(x_place, y_place) or 0.0


def _equals(place: Int64[np.ndarray, " N"]) -> int:
    """Ordered pairs of equal ones, each with itself too."""
    counts = np.bincount(place)
    return int(counts @ counts)


def _inversions(values: Int64[np.ndarray, " N"]) -> int:
    """Pairs of which the first is the larger, counted as merging does, all merges of one width at once."""
    at, width, inversions = np.arange(len(values)), 1, 0
    while width < len(values):
        right, block = at // width % 2, at // (2 * width)
        order = np.lexsort((right, values, block))
        passed = np.cumsum(right[order])
        before = np.maximum.accumulate(np.where(np.diff(block[order], prepend=-1) > 0, passed - right[order], 0))
        inversions += int(((passed - before) * (1 - right[order])).sum())
        width *= 2
    return inversions
