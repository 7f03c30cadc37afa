"""Numbers with their uncertainty: Wilson intervals, and a bootstrap that resamples prompts.

Surprising: items of one prompt are not independent, so what is resampled is prompts, never pairs; ten pairs of one
prompt say little more than one. A figure's interval depends on that figure alone, not on what is estimated beside it.
- Where every prompt has one plain right-or-wrong item, Wilson's interval needs no resampling.
- A bootstrap cannot see past its sample (all right, five times, would give 100 % to 100 %). A mean whose prompts all
  agree gets the share of prompts that may yet depart from it, by Wilson; inside a sum such means are added to the
  bootstrap's limits by MOVER (Zou and Donner 2008).
- A stratum of one prompt would add no spread, so such strata are resampled as one.
- Nothing is made from nothing: no items, no value.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput

Unit = Literal["pairs", "comparisons", "items", "prompts", "votes"]
Bounds = tuple[float, float]
Interval = tuple[float, float]

_SLOTS = 500_000
"""Prompts drawn at a time: bounds memory. Changing it changes no interval but by rounding."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: reported with every evaluation, so that it can be repeated."""

    resamples: int = 10_000
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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One weighted mean inside a figure.

    Args:
        values: [n] one for each unit, such as 1 for an item answered right; NaN leaves the figure without a value.
        prompts: [n] units of equal number are of one prompt, and resampled together. Numbers are shared by all parts
            and figures that are estimated together.
        weights: [n] above 0, inside this mean; None: all equal. Their scale does not matter.
        coefficient: of this mean in the figure.
        bounds: the least and the greatest value possible. Looked at where a figure of several parts has bounds.
    """

    values: Float64[np.ndarray, " n"]
    prompts: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"] | None = None
    coefficient: float = 1.0
    bounds: Bounds = (0.0, 1.0)


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


def one_mean(
    values: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    weights: Float64[np.ndarray, " n"] | None = None,
    *,
    n: int,
    unit: Unit,
    bounds: Bounds | None = (0.0, 1.0),
) -> Figure:
    """A figure that is one weighted mean, or without parts where there is nothing to average."""
    part = Part(values, prompts, weights, bounds=bounds or (0.0, 1.0))
    return Figure((part,) if len(values) else (), n, unit, bounds)


def minus(figure: Figure, other: Figure) -> Figure:
    """The difference of the same figure of two models on the same items.

    Raises:
        BadInput: the two are not of the same items.
    """
    mine, theirs = figure.parts, other.parts
    if len(mine) != len(theirs) or any(
        not np.array_equal(a.prompts, b.prompts) for a, b in zip(mine, theirs, strict=False)
    ):
        raise BadInput("two figures to compare are not of the same items; wanted both on the same data, in one order")
    parts = tuple(
        Part(a.values - b.values, a.prompts, a.weights, a.coefficient, _difference(a.bounds))
        for a, b in zip(mine, theirs, strict=True)
    )
    return Figure(parts, figure.n, figure.unit, figure.bounds and _difference(figure.bounds))


def _difference(bounds: Bounds) -> Bounds:
    return bounds[0] - bounds[1], bounds[1] - bounds[0]


def estimate_all(
    figures: Mapping[str, Figure], bootstrap: Bootstrap, *, strata: Int64[np.ndarray, " G"] | None = None
) -> dict[str, Estimate]:
    """Every figure with its interval. Figures of the same prompts share one set of resamples.

    Args:
        strata: [G] of prompt number 0, 1, ...: prompts are resampled inside their stratum, so that a benchmark's fixed
            subsets keep their sizes. None: all prompts are one stratum.
    """
    sums = {name: sums_of(figure, strata) for name, figure in figures.items()}
    drawn = _resample({name: one for name, one in sums.items() if one is not None and one.bootstrapped}, bootstrap)
    return {name: _estimate(figure, sums[name], drawn.get(name), bootstrap) for name, figure in figures.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """A figure with J parts, added up over each of its C prompts.

    Args:
        value: of the figure.
        means: [J] of the parts.
        weighted: [J] coefficient times mean.
        prompts: [C] their numbers, ascending.
        strata: [C] 0, 1, ..., none of a single prompt unless it is the only one.
        gaps: [C, J] each prompt's weighted distance from the part's mean, times coefficient / the part's weight: what
            the prompt adds to the figure, to first order. Columns sum to 0.
        shares: [C, J] of the part's weight. Columns sum to 1.
        plain: one right-or-wrong item for each prompt, one stratum.
    """

    value: float
    means: Float64[np.ndarray, " J"]
    weighted: Float64[np.ndarray, " J"]
    prompts: Int64[np.ndarray, " C"]
    strata: Int64[np.ndarray, " C"]
    gaps: Float64[np.ndarray, "C J"]
    shares: Float64[np.ndarray, "C J"]
    plain: bool

    @property
    def added(self) -> Float64[np.ndarray, " C"]:
        """What each prompt adds to the figure; sums to its value."""
        return self.gaps.sum(1) + self.shares @ self.weighted

    @property
    def standard_error(self) -> float:
        """Linearised, over prompts inside strata; 0 where they show no spread."""
        gaps, sizes = self.gaps.sum(1), np.bincount(self.strata)
        inside = gaps - (np.bincount(self.strata, gaps) / sizes)[self.strata]
        squares = np.bincount(self.strata, inside**2)
        return float(np.sqrt((squares * sizes / np.maximum(sizes - 1, 1)).sum()))

    @property
    def bootstrapped(self) -> bool:
        return not self.plain and bool(self.gaps.any())


def sums_of(figure: Figure, strata: Int64[np.ndarray, " G"] | None = None) -> Sums | None:
    """A figure added up over prompts; None where it has no value. `strata` as in `estimate_all`."""
    parts = figure.parts
    if not parts or any(not len(part.values) or not np.isfinite(part.values).all() for part in parts):
        return None
    prompts = np.unique(np.concatenate([part.prompts for part in parts]))
    gaps, shares = np.zeros((len(prompts), len(parts))), np.zeros((len(prompts), len(parts)))
    means = np.zeros(len(parts))
    for j, part in enumerate(parts):
        place = np.searchsorted(prompts, part.prompts)
        weights = np.ones(len(part.values)) if part.weights is None else part.weights
        whole = weights.sum()
        totals = np.bincount(place, weights * part.values, len(prompts)) / whole
        shares[:, j] = np.bincount(place, weights, len(prompts)) / whole
        means[j] = (weights * part.values).sum() / whole
        gaps[:, j] = part.coefficient * (totals - means[j] * shares[:, j])
        if _agree(totals, shares[:, j]):
            gaps[:, j] = 0.0
    weighted = np.array([part.coefficient for part in parts]) * means
    own = np.zeros(len(prompts), np.int64) if strata is None else _pooled(strata[prompts])
    plain = not own.any() and figure.bounds == (0.0, 1.0) and len(parts) == 1 and _plain(parts[0], len(prompts))
    return Sums(float(weighted.sum()), means, weighted, prompts, own, gaps, shares, plain)


def _agree(totals: Float64[np.ndarray, " C"], shares: Float64[np.ndarray, " C"]) -> bool:
    """Whether all prompts of a part have the same mean."""
    means = totals[shares > 0] / shares[shares > 0]
    return bool(np.ptp(means) <= 1e-12 * max(1.0, float(np.abs(means).max())))


def _plain(part: Part, prompts: int) -> bool:
    equal = part.weights is None or bool(np.ptp(part.weights) == 0)
    return equal and len(part.values) == prompts and bool(np.isin(part.values, (0.0, 0.5, 1.0)).all())


def _pooled(strata: Int64[np.ndarray, " C"]) -> Int64[np.ndarray, " C"]:
    """Strata as 0, 1, ...; those of a single prompt become one, and a last single one joins the smallest other."""
    _, label, size = np.unique(strata, return_inverse=True, return_counts=True)
    single = size[label] == 1
    if single.sum() == 1 and len(size) > 1:
        label[single] = np.where(size == 1, size.max() + 1, size).argmin()
    elif single.any():
        label[single] = len(size)
    return np.unique(label, return_inverse=True)[1]


def _estimate(
    figure: Figure, sums: Sums | None, drawn: Float64[np.ndarray, " R"] | None, bootstrap: Bootstrap
) -> Estimate:
    if sums is None:
        prompts = np.concatenate([np.zeros(0, np.int64), *(part.prompts for part in figure.parts)])
        return Estimate(None, None, None, figure.n, figure.unit, len(np.unique(prompts)))
    low, high = _interval(figure, sums, drawn, bootstrap)
    return Estimate(sums.value, low, high, figure.n, figure.unit, len(sums.prompts))


def _interval(
    figure: Figure, sums: Sums, drawn: Float64[np.ndarray, " R"] | None, bootstrap: Bootstrap
) -> Interval | tuple[None, None]:
    size = len(sums.prompts)
    if sums.plain:
        return wilson(sums.value * size, size, confidence=bootstrap.confidence)
    below, above = (0.0, 0.0) if drawn is None else _bca(drawn, _acceleration(sums), bootstrap.confidence)
    if figure.bounds is None:
        return (sums.value + below, sums.value + above) if size > 1 else (None, None)
    down, up = _departures(figure, sums, bootstrap.confidence)
    return sums.value - math.hypot(below, down), sums.value + math.hypot(above, up)


def _departures(figure: Figure, sums: Sums, confidence: float) -> Interval:
    """How far below and above its value a figure may be for the parts whose prompts all agree.

    None of a part's C prompts departed from its mean, so by Wilson at most z^2 / (C + z^2) of all prompts do, at most
    to the bounds. Parts are combined by MOVER (Zou and Donner 2008, eq. 3): distances of independent parts add in
    squares, those of parts of the same prompts plainly.
    """
    single = len(figure.parts) == 1
    found: dict[bytes, tuple[float, float]] = {}
    for j in np.flatnonzero(~sums.gaps.any(0)):
        part, held = figure.parts[j], sums.shares[:, j] > 0
        least, greatest = figure.bounds if single and figure.bounds else part.bounds
        reach = part.coefficient * wilson(0.0, int(held.sum()), confidence=confidence)[1]
        ends = (reach * max(0.0, sums.means[j] - least), reach * max(0.0, greatest - sums.means[j]))
        down, up = ends if reach >= 0 else (-ends[1], -ends[0])
        before = found.get(held.tobytes(), (0.0, 0.0))
        found[held.tobytes()] = (before[0] + down, before[1] + up)
    return math.hypot(*(down for down, _ in found.values())), math.hypot(*(up for _, up in found.values()))


def _bca(drawn: Float64[np.ndarray, " R"], skew: float, confidence: float) -> Interval:
    """BCa limits (Efron 1987, eq. 2.3) of resampled distances from a figure's value."""
    normal = NormalDist()
    level = float(np.mean(drawn < 0) + np.mean(drawn == 0) / 2)
    # Half a resample from 0 and 1, so that the quantile stays finite.
    bias = normal.inv_cdf(min(max(level, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    levels = []
    for z in (normal.inv_cdf((1 - confidence) / 2), normal.inv_cdf((1 + confidence) / 2)):
        levels.append(normal.cdf(bias + (bias + z) / max(1 - skew * (bias + z), 1e-9)))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def _acceleration(sums: Sums) -> float:
    """A sixth of the skewness of the leave-one-prompt-out values, each less the mean of its stratum."""
    # A prompt that is a whole part cannot be left out of it: the part stays.
    rest = np.where(sums.shares < 1, 1 - sums.shares, 1.0)
    left_out = (sums.gaps / rest).sum(1)
    left_out -= (np.bincount(sums.strata, left_out) / np.bincount(sums.strata))[sums.strata]
    return float((left_out**3).sum() / (6 * (left_out**2).sum() ** 1.5)) if left_out.any() else 0.0


def _resample(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """Each figure's distances from its value in R resamples."""
    alike: dict[bytes, list[str]] = {}
    for name, one in sums.items():
        alike.setdefault(one.prompts.tobytes(), []).append(name)
    drawn = {}
    for names in alike.values():
        drawn |= _resample_alike({name: sums[name] for name in names}, bootstrap)
    # Resamples equal to the sample but for rounding are equal to it: the bias counts them as half below.
    return {name: np.where(np.abs(one) < 1e-12, 0.0, one) for name, one in drawn.items()}


def _resample_alike(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """The same for figures of the same prompts."""
    strata = next(iter(sums.values())).strata
    order = np.argsort(strata, kind="stable")
    gaps = np.hstack([one.gaps for one in sums.values()])[order]
    shares = np.hstack([one.shares for one in sums.values()])[order]
    ends = np.cumsum([one.gaps.shape[1] for one in sums.values()])[:-1]
    moved = []
    for counts in _multiplicities(np.bincount(strata), bootstrap):
        left = counts @ shares
        # A part that a resample leaves without any prompt keeps its value.
        moved.append(np.divide(counts @ gaps, left, out=np.zeros_like(left), where=left > 1e-12))
    each = np.split(np.concatenate(moved), ends, axis=1)
    return {name: parts.sum(1) for name, parts in zip(sums, each, strict=True)}


def _multiplicities(sizes: Int64[np.ndarray, " S"], bootstrap: Bootstrap) -> Iterator[Float64[np.ndarray, "r C"]]:
    """How often each prompt is in each resample, some resamples at a time.

    Args:
        sizes: [S] prompts of each stratum; the prompts are in the strata's order.
    """
    size, width = int(sizes.sum()), np.repeat(sizes, sizes).astype(np.float64)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    random, rows = np.random.default_rng(bootstrap.seed), max(1, _SLOTS // size)
    for first in range(0, bootstrap.resamples, rows):
        count = min(rows, bootstrap.resamples - first)
        place = (random.random((count, size)) * width).astype(np.int64) + start + size * np.arange(count)[:, None]
        yield np.bincount(place.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


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
    """sum(totals) / sum(counts) over M comparisons, with its interval."""
    figure = one_mean(totals / counts, prompts, counts, n=n, unit=unit, bounds=bounds)
    return estimate_all({"": figure}, bootstrap or Bootstrap())[""]


def cluster_bootstrap(
    totals: Float64[np.ndarray, " C"], counts: Float64[np.ndarray, " C"], bootstrap: Bootstrap
) -> Interval:
    """BCa interval of sum(totals) / sum(counts) over C clusters (Efron 1987), clusters resampled whole."""
    places = np.arange(len(totals))
    found = estimate(totals, counts, places, n=len(totals), unit="pairs", bootstrap=bootstrap)
    return found.low or 0.0, found.high or 0.0
