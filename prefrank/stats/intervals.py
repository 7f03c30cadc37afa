"""Intervals in closed form: Wilson's of a share, and normal ones from what each unit adds to a figure."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput
from prefrank.stats.arrays import distinct

Interval = tuple[float, float]
Z_95 = 1.959963984540054
"""Standard errors on either side of a 95 % normal interval, right to the last bit, which `z_value` is not quite."""


def z_value(confidence: float) -> float:
    """Standard errors on either side of a normal interval.

    >>> round(z_value(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); a tie is half a success, which makes it a little wide.

    Raises:
        BadInput: no trials, or more successes than trials.
    """
    if not 0 <= successes <= n or n < 1:
        raise BadInput(f"{successes} successes in {n} trials; wanted at least one trial and 0 to {n} successes")
    return wilson_of_share(successes / n, n, z_value(confidence))


def wilson_of_share(share: float, n: int, z: float) -> Interval:
    """The same of a share of n >= 1 trials, z standard errors either way."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and n successes an end is the share itself, which rounding can miss by a hair.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(values: Float64[np.ndarray, " n"], z: float) -> Interval | None:
    """The normal interval of a mean of independent values, z standard errors either way; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, half = float(values.mean()), z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def clustered_error(influence: Float64[np.ndarray, " n"], cluster: Int64[np.ndarray, " n"]) -> float:
    """The standard error of a figure, from what each unit adds to it; clusters, two at least, are independent.

    The infinitesimal jackknife (Efron 1982, chapter 6), for a regression the cluster-robust sandwich.
    """
    sums, count = np.bincount(cluster, influence), len(distinct(cluster))
    return math.sqrt(count / (count - 1) * float(sums @ sums))


def normal_interval(
    centre: float, error: float, *, confidence: float, back: Callable[[float], float] = float
) -> Interval:
    """Symmetric about the center, its ends taken back to the scale that is reported, such as by tanh from atanh."""
    half = z_value(confidence) * error
    return back(centre - half), back(centre + half)
