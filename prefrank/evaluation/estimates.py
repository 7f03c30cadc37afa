"""Numbers with their uncertainty: Wilson intervals, and a bootstrap that resamples prompts.

Surprising: items of one prompt are not independent, so what is resampled is prompts, never pairs; ten pairs of one
prompt say little more than one. Where every prompt has one plain right-or-wrong item, Wilson's interval needs no
resampling. A bootstrap cannot see past its sample (all right, five times, would give 100 % to 100 %), so there too
a bounded mean falls back on Wilson with one trial per prompt. Nothing is made from nothing: no items, no value.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput

Unit = Literal["pairs", "comparisons", "items", "prompts", "votes"]
Bounds = tuple[float, float]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: reported with every evaluation, so that it can be repeated."""

    resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0.0 < self.confidence < 1.0:
            raise BadInput(
                f"the bootstrap has {self.resamples} resamples and confidence {self.confidence};"
                " wanted at least 1 and a number between 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value and its interval.

    Args:
        value: None where there is nothing to measure, or where a failed score leaves it undefined.
        low: lower end of the interval; None where there is no value, or one prompt alone gives no spread.
        high: upper end.
        n: items measured.
        unit: what `n` counts.
        prompts: distinct prompts among them, the independent units behind the interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: Unit
    prompts: int

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" if self.low is None else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); a tie is half a success, which makes it a little wide.

    Raises:
        BadInput: no trials, or more successes than trials.
    """
    if not 0 <= successes <= n or n < 1:
        raise BadInput(f"{successes} successes in {n} trials; wanted at least one trial and 0 to {n} successes")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At 0 and n successes an end is the rate itself, which rounding can miss by a hair.
    return max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))


def cluster_bootstrap(
    totals: Float64[np.ndarray, " C"], counts: Float64[np.ndarray, " C"], bootstrap: Bootstrap
) -> Interval:
    """BCa interval of sum(totals) / sum(counts) over C clusters (Efron 1987), clusters resampled whole.

    Args:
        totals: [C] sum of each cluster's values.
        counts: [C] how many values that is, above 0.
    """
    value = totals.sum() / counts.sum()
    drawn = _resample(totals, counts, bootstrap)
    normal = NormalDist()
    below = np.mean(drawn < value) + np.mean(drawn == value) / 2
    # Half a resample from 0 and 1, so that the quantile stays finite.
    bias = normal.inv_cdf(min(max(float(below), 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    skew = _acceleration(totals, counts)
    levels = []
    for z in (normal.inv_cdf((1 - bootstrap.confidence) / 2), normal.inv_cdf((1 + bootstrap.confidence) / 2)):
        levels.append(normal.cdf(bias + (bias + z) / (1 - skew * (bias + z))))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def _resample(
    totals: Float64[np.ndarray, " C"], counts: Float64[np.ndarray, " C"], bootstrap: Bootstrap
) -> Float64[np.ndarray, " R"]:
    random = np.random.default_rng(bootstrap.seed)
    size = len(totals)
    rows = max(1, 1_000_000 // size)  # resamples at a time: bounds memory, not the result
    parts = []
    for first in range(0, bootstrap.resamples, rows):
        chosen = random.integers(0, size, (min(rows, bootstrap.resamples - first), size))
        parts.append(totals[chosen].sum(1) / counts[chosen].sum(1))
    return np.concatenate(parts)


def _acceleration(totals: Float64[np.ndarray, " C"], counts: Float64[np.ndarray, " C"]) -> float:
    """A sixth of the skewness of the leave-one-cluster-out values; 0 where they are all equal."""
    left_out = (totals.sum() - totals) / (counts.sum() - counts)
    gap = left_out.mean() - left_out
    spread = (gap**2).sum() ** 1.5
    return float((gap**3).sum() / (6 * spread)) if spread > 0 else 0.0


def estimate(
    totals: Float64[np.ndarray, " M"],
    counts: Float64[np.ndarray, " M"],
    prompts: Int64[np.ndarray, " M"],
    *,
    n: int,
    unit: Unit,
    bounds: Bounds | None = None,
    bootstrap: Bootstrap | None = None,
) -> Estimate:
    """sum(totals) / sum(counts) over M comparisons, with its interval.

    Args:
        totals: [M] sum of each comparison's values; one that is not finite leaves the estimate without a value.
        counts: [M] how many values that is, above 0.
        prompts: [M] comparisons of equal number are of one prompt, and resampled together.
        n: items, as reported.
        unit: what `n` counts.
        bounds: the least and the greatest value possible, if there are such.
    """
    different, clusters = np.unique(prompts, return_inverse=True)
    if not len(totals) or not np.isfinite(totals).all():
        return Estimate(None, None, None, n, unit, len(different))
    totals, counts = np.bincount(clusters, totals), np.bincount(clusters, counts)
    low, high = _interval(totals, counts, bounds, bootstrap or Bootstrap())
    return Estimate(float(totals.sum() / counts.sum()), low, high, n, unit, len(different))


def _interval(
    totals: Float64[np.ndarray, " C"],
    counts: Float64[np.ndarray, " C"],
    bounds: Bounds | None,
    bootstrap: Bootstrap,
) -> Interval | tuple[None, None]:
    if bounds is not None:
        least, width = bounds[0], bounds[1] - bounds[0]
        shares = np.clip((totals / counts - least) / width, 0.0, 1.0)
        plain = (counts == 1).all() and np.isin(shares, (0.0, 0.5, 1.0)).all()
        if plain or np.ptp(shares) < 1e-12:
            low, high = wilson(float(shares.sum()), len(shares), confidence=bootstrap.confidence)
            return least + width * low, least + width * high
    return cluster_bootstrap(totals, counts, bootstrap) if len(totals) > 1 else (None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One weighted mean inside a figure.

    Args:
        values: [n] one for each unit, such as 1 for an item answered right; NaN leaves the figure without a value.
        prompts: [n] units of equal number are of one prompt, and resampled together. Numbers are shared by all parts
            and figures that are estimated together.
        weights: [n] above 0, inside this mean; None: all equal.
        coefficient: of this mean in the figure.
    """

    values: Float64[np.ndarray, " n"]
    prompts: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"] | None = None
    coefficient: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A figure before it has an interval: the sum over parts of coefficient times weighted mean.

    Every score of every benchmark is of this form, so one bootstrap serves them all, and the difference of two models
    on the same items is a figure too (`minus`).

    Args:
        parts: at least one, or none where there is nothing to measure.
        n: items, as reported.
        unit: what `n` counts.
        bounds: the least and the greatest value possible, if there are such.
    """

    parts: tuple[Part, ...]
    n: int
    unit: Unit
    bounds: Bounds | None = (0.0, 1.0)


def minus(figure: Figure, other: Figure) -> Figure:
    """The difference of the same figure of two models on the same items."""
    parts = tuple(
        Part(mine.values - theirs.values, mine.prompts, mine.weights, mine.coefficient)
        for mine, theirs in zip(figure.parts, other.parts, strict=True)
    )
    bounds = figure.bounds and (figure.bounds[0] - figure.bounds[1], figure.bounds[1] - figure.bounds[0])
    return Figure(parts, figure.n, figure.unit, bounds)


def estimate_all(
    figures: Mapping[str, Figure], bootstrap: Bootstrap, *, strata: Int64[np.ndarray, " G"] | None = None
) -> dict[str, Estimate]:
    """Every figure with its interval, from one set of resamples of prompts.

    Args:
        strata: [G] of prompt number 0, 1, ...: prompts are resampled inside their stratum, so that a benchmark's fixed
            subsets keep their sizes. None: all prompts are one stratum.
    """
    found = {}
    for name, figure in figures.items():
        prompts = np.concatenate([np.zeros(0, np.int64), *(part.prompts for part in figure.parts)])
        value = sum(part.coefficient * np.average(part.values, weights=part.weights) for part in figure.parts)
        value = float(value) if figure.parts and np.isfinite(value) else None
        found[name] = Estimate(value, None, None, figure.n, figure.unit, len(np.unique(prompts)))
    return found
