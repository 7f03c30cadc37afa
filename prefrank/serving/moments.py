"""Means and correlations of scores and lengths from running sums, with intervals that know which rows came together.

Rows of one prompt in one request are not independent. What such a group adds to each sum is a vector; the sum of these
vectors gives the figures, the sum of their products the error of every figure that is smooth in them: the infinitesimal
jackknife over groups (Efron 1982, chapter 6), as `prefrank.stats.intervals.clustered_error` has it for values at hand.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.stats.intervals import normal_interval

CONFIDENCE = 0.95
_ALL = ("n", "x", "y", "xx", "xy", "yy")
_WITHIN = ("xx", "xy", "yy")
_LEAST = 1e-12
"""Of a variance, beside the square of what varies: less is rounding."""


@dataclass(slots=True, eq=False)
class Sums:
    """Sums over groups of what each adds.

    Args:
        names: of what they add.
        groups: how many.
        total: [S] sums.
        products: [S, S] sums of products of what one group adds.
    """

    names: tuple[str, ...]
    groups: int = 0
    total: Float64[np.ndarray, " S"] = field(init=False)
    products: Float64[np.ndarray, "S S"] = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(len(self.names))
        self.products = np.zeros((len(self.names), len(self.names)))

    def add(self, added: Float64[np.ndarray, "G S"]) -> None:
        self.groups += len(added)
        self.total += added.sum(0)
        self.products += added.T @ added

    def join(self, other: "Sums") -> None:
        self.groups += other.groups
        self.total += other.total
        self.products += other.products

    def error(self, change: Float64[np.ndarray, " S"]) -> float | None:
        """Standard error of a figure that changes so with each sum; None of a single group."""
        if self.groups < 2:
            return None
        return math.sqrt(self.groups / (self.groups - 1) * max(0.0, float(change @ self.products @ change)))


@dataclass(slots=True, eq=False)
class Moments:
    """Scores y and lengths x of rows in groups.

    Args:
        center: of x and y, what they are counted from, so that squares of large numbers do not swallow the rest.
    """

    center: tuple[float, float]
    overall: Sums = field(default_factory=lambda: Sums(_ALL))
    within: Sums = field(default_factory=lambda: Sums(_WITHIN))
    compared: int = 0
    """Rows of groups that have several."""

    def add(self, x: Float64[np.ndarray, " N"], y: Float64[np.ndarray, " N"], group: Int64[np.ndarray, " N"]) -> None:
        """Add whole groups.

        Args:
            group: [N] number of each row's group, 0 and up, none left out.
        """
        x, y = x - self.center[0], y - self.center[1]
        size = np.bincount(group)
        sums = [np.bincount(group, each) for each in (np.ones(len(x)), x, y, x * x, x * y, y * y)]
        self.overall.add(np.stack(sums, 1))
        dx, dy = x - (sums[1] / size)[group], y - (sums[2] / size)[group]
        several = size > 1
        self.within.add(np.stack([np.bincount(group, each)[several] for each in (dx * dx, dx * dy, dy * dy)], 1))
        self.compared += int(size[several].sum())

    def join(self, other: "Moments") -> None:
        """Add the rows of another, counted from the same center."""
        self.overall.join(other.overall)
        self.within.join(other.within)
        self.compared += other.compared

    @property
    def rows(self) -> int:
        return round(float(self.overall.total[0]))

    @property
    def mean(self) -> float | None:
        return self.center[1] + float(self.overall.total[2]) / self.rows if self.rows else None

    @property
    def std(self) -> float | None:
        """The standard deviation of the scores, divided by n - 1."""
        if (n := self.rows) < 2:
            return None
        variance = float(self.overall.total[5]) / n - (float(self.overall.total[2]) / n) ** 2
        return math.sqrt(max(0.0, variance) * n / (n - 1))

    def mean_figure(self) -> dict[str, Any]:
        """The mean score with its interval."""
        if self.mean is None:
            return _figure(None, None)
        change = np.zeros(len(_ALL))
        change[0], change[2] = -float(self.overall.total[2]) / self.rows, 1.0
        error = self.overall.error(change / self.rows)
        return _figure(self.mean, None if error is None else normal_interval(self.mean, error, confidence=CONFIDENCE))

    def overall_correlation(self) -> dict[str, Any]:
        """Pearson's of score and length over all rows."""
        if not self.rows:
            return _figure(None, None)
        _, a, b, xx, xy, yy = (self.overall.total / self.rows).tolist()
        first, second, both = xx - a * a, yy - b * b, xy - a * b
        if first < _LEAST * (self.center[0] + a) ** 2 or second < _LEAST * (self.center[1] + b) ** 2:
            return _figure(None, None)
        if not first * second > 0:
            return _figure(None, None)
        scale = math.sqrt(first * second)
        r = both / scale
        on_all = (a * b - both) / scale - r / 2 * ((a * a - first) / first + (b * b - second) / second)
        on_x, on_y = r * a / first - b / scale, r * b / second - a / scale
        change = np.array([on_all, on_x, on_y, -r / (2 * first), 1 / scale, -r / (2 * second)])
        return _correlation(r, self.overall.error(change / self.rows))

    def within_correlation(self) -> dict[str, Any]:
        """Pearson's of what each row's score and length have over the means of its group."""
        counts = {"replies": self.compared, "prompts": self.within.groups}
        first, both, second = self.within.total.tolist()
        floor = _LEAST * max(1, self.compared)
        if first <= floor or second <= floor * (self.mean or 0.0) ** 2 or not first * second > 0:
            return _figure(None, None) | counts
        scale = math.sqrt(first * second)
        r = both / scale
        change = np.array([-r / (2 * first), 1 / scale, -r / (2 * second)])
        return _correlation(r, self.within.error(change)) | counts


def _correlation(r: float, error: float | None) -> dict[str, Any]:
    """With an interval that is symmetric for its inverse hyperbolic tangent (Fisher 1921)."""
    r = max(-1.0, min(1.0, r))
    if error is None or 1 - r * r < _LEAST:
        return _figure(r, None)
    return _figure(r, normal_interval(math.atanh(r), error / (1 - r * r), confidence=CONFIDENCE, back=math.tanh))


def _figure(value: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high}
