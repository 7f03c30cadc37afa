"""Numbers with their uncertainty: Wilson intervals, and a bootstrap that resamples prompts.

Surprising: items of one prompt are not independent, so what is resampled is prompts, never pairs; ten pairs of one
prompt say little more than one. A figure's interval depends on that figure alone, not on what is estimated beside it.
- Where every prompt has one plain right-or-wrong item, Wilson's interval needs no resampling.
- A bootstrap cannot see past its sample (all right, five times, would give 100 % to 100 %). Where all prompts agree,
  the interval allows for the share of them that may yet depart, by Wilson; inside a sum this is added to the
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
from jaxtyping import Float64, Int64, Integer

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, short
from prefrank.limits import limit, past

Unit = Literal["pairs", "comparisons", "items", "prompts", "votes"]
Bounds = tuple[float, float]
Interval = tuple[float, float]

_MOST = 1e90
"""A figure further from 0 has no value: its squares and sums would not be numbers."""

_SLOTS = 200_000
"""Prompts drawn at a time: few enough for the processor's cache."""


_BLOCK = 1 << 18


def in_blocks(count: int) -> Iterator[slice]:
    """0 to count in parts small enough that what is found of each stays in the processor's cache; one part of few."""
    return (slice(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK))


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: reported with every evaluation, so that it can be repeated."""

    resamples: int = 10_000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_whole("resamples", self.resamples, least=1)
        if self.resamples > limit("resamples"):
            raise BadInput(f"resamples is {short(self.resamples)}, {past('resamples')}")
        check_whole("the bootstrap's seed", self.seed, least=0)
        check_number("the bootstrap's confidence", self.confidence, above=0.0, below=1.0)


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


def distinct(values: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " d"]:
    """The different values, ascending: `np.unique` by counting or sorting, as its hashes take seconds for millions."""
    if len(values) and values.min() >= 0 and values.max() < len(values):
        return np.flatnonzero(np.bincount(values)).astype(values.dtype, copy=False)
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


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


@np.errstate(over="ignore", invalid="ignore")
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
        prompts: [C] their numbers, ascending.
        strata: [C] 0, 1, ..., none of a single prompt unless it is the only one.
        gaps: [C, J] each prompt's weighted distance from the part's mean, times coefficient / the part's weight: what
            the prompt moves the figure by, to first order. Columns sum to 0.
        shares: [C, J] of the part's weight. Columns sum to 1.
        means: [C, J] of each prompt in each part; NaN where it is not in it.
        added: [C] each prompt's share of the value, which they sum to.
        plain: one right-or-wrong item for each prompt, one stratum.
    """

    value: float
    prompts: Int64[np.ndarray, " C"]
    strata: Int64[np.ndarray, " C"]
    gaps: Float64[np.ndarray, "C J"]
    shares: Float64[np.ndarray, "C J"]
    means: Float64[np.ndarray, "C J"]
    added: Float64[np.ndarray, " C"]
    plain: bool

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


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def sums_of(figure: Figure, strata: Int64[np.ndarray, " G"] | None = None) -> Sums | None:
    """A figure added up over prompts; None where it has no value. `strata` as in `estimate_all`."""
    parts = figure.parts
    if not parts or any(not len(part.values) or not (np.abs(part.values) <= _MOST).all() for part in parts):
        return None
    prompts = distinct(np.concatenate([part.prompts for part in parts]))
    value, added, shape = 0.0, np.zeros(len(prompts)), (len(prompts), len(parts))
    gaps, shares, means = np.zeros(shape), np.zeros(shape), np.full(shape, np.nan)
    for j, part in enumerate(parts):
        place = np.searchsorted(prompts, part.prompts)
        weights = np.ones(len(part.values)) if part.weights is None else part.weights
        mass, weighted = weights.sum(), weights * part.values
        totals = np.bincount(place, weighted, len(prompts)) / mass
        shares[:, j] = np.bincount(place, weights, len(prompts)) / mass
        held, mean = shares[:, j] > 0, float(weighted.sum() / mass)
        means[held, j] = totals[held] / shares[held, j]
        value += part.coefficient * mean
        added += part.coefficient * totals
        if not _agree(means[held, j]):
            gaps[:, j] = part.coefficient * (totals - mean * shares[:, j])
    own = np.zeros(len(prompts), np.int64) if strata is None else _pooled(strata[prompts])
    plain = not own.any() and _plain(figure, len(prompts))
    return Sums(value, prompts, own, gaps, shares, means, added, plain)


def _agree(means: Float64[np.ndarray, " c"]) -> bool:
    return bool(np.ptp(means) <= 1e-12 * max(1.0, float(np.abs(means).max())))  # equal but for rounding


def _plain(figure: Figure, prompts: int) -> bool:
    """Whether a figure is the mean of one right (1), wrong (0) or tied (0.5) item for each prompt."""
    if len(figure.parts) != 1 or figure.bounds != (0.0, 1.0) or figure.parts[0].coefficient != 1:
        return False
    values, weights = figure.parts[0].values, figure.parts[0].weights
    equal = weights is None or bool(np.ptp(weights) == 0)
    return equal and len(values) == prompts and bool(np.isin(values, (0.0, 0.5, 1.0)).all())


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
        return Estimate(None, None, None, figure.n, figure.unit, len(distinct(prompts)))
    low, high = _interval(figure, sums, drawn, bootstrap.confidence)
    return Estimate(sums.value, low, high, figure.n, figure.unit, len(sums.prompts))


def _interval(
    figure: Figure, sums: Sums, drawn: Float64[np.ndarray, " R"] | None, confidence: float
) -> Interval | tuple[None, None]:
    value, size = sums.value, len(sums.prompts)
    if sums.plain:
        return wilson(value * size, size, confidence=confidence)
    below, above = (0.0, 0.0) if drawn is None else _bca(drawn, _acceleration(sums), confidence)
    if figure.bounds is None:
        single = bool(((sums.shares > 0).sum(0) == 1).any())
        return (None, None) if single else (value + below, value + above)
    down, up = _departures(figure, sums, confidence)
    low, high = value - math.hypot(below, down), value + math.hypot(above, up)
    # Rounding may lead out of the bounds by a hair.
    return max(low, min(value, figure.bounds[0])), min(high, max(value, figure.bounds[1]))


def _departures(figure: Figure, sums: Sums, confidence: float) -> Interval:
    """How far below and above its value a figure may be for what resampling cannot see.

    Where the C prompts of a stratum (or of a part) all agree, none departed from their mean, so by Wilson at most
    z^2 / (C + z^2) of all prompts do, at most to the bounds. Distances of different prompts add in squares (MOVER, Zou
    and Donner 2008), those of the same prompts, which may depart together, plainly.
    """
    found: dict[bytes, Float64[np.ndarray, " 2"]] = {}
    for j, part in enumerate(figure.parts):
        bounds = figure.bounds if len(figure.parts) == 1 and figure.bounds else part.bounds
        for stratum in distinct(sums.strata[sums.shares[:, j] > 0]).tolist():
            held = (sums.strata == stratum) & (sums.shares[:, j] > 0)
            if _agree(sums.means[held, j]):
                reach = wilson(0.0, int(held.sum()), confidence=confidence)[1] * float(sums.shares[held, j].sum())
                mean = sums.means[held, j][0]
                ends = np.array([max(0.0, mean - bounds[0]), max(0.0, bounds[1] - mean)])
                both = abs(part.coefficient) * reach * (ends if part.coefficient > 0 else ends[::-1])
                found[held.tobytes()] = found.get(held.tobytes(), np.zeros(2)) + both
    down, up = np.sqrt(sum((ends**2 for ends in found.values()), np.zeros(2)))
    return float(down), float(up)


def _bca(drawn: Float64[np.ndarray, " R"], skew: float, confidence: float) -> Interval:
    """BCa limits (Efron 1987) of resampled distances from a figure's value; the value is always inside."""
    normal, same = NormalDist(), 1e-11 * np.abs(drawn).max()  # equal to the sample but for rounding
    level = float(np.mean(drawn < -same) + np.mean(np.abs(drawn) <= same) / 2)
    # Half a resample from 0 and 1, so that the quantile stays finite.
    bias = normal.inv_cdf(min(max(level, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    levels = []
    for z in (normal.inv_cdf((1 - confidence) / 2), normal.inv_cdf((1 + confidence) / 2)):
        levels.append(normal.cdf(bias + (bias + z) / max(1 - skew * (bias + z), 1e-9)))
    low, high = np.quantile(drawn, levels)
    return min(float(low), 0.0), max(float(high), 0.0)


def _acceleration(sums: Sums) -> float:
    """A sixth of the skewness of the leave-one-prompt-out values, each less the mean of its stratum."""
    # A prompt that is a whole part cannot be left out of it: the part stays.
    rest = np.where(sums.shares < 1, 1 - sums.shares, 1.0)
    left_out = (sums.gaps / rest).sum(1)
    left_out -= (np.bincount(sums.strata, left_out) / np.bincount(sums.strata))[sums.strata]
    squares = (left_out**2).sum() ** 1.5
    return float((left_out**3).sum() / (6 * squares)) if squares > 0 else 0.0


def _resample(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """Each figure's distances from its value in R resamples."""
    alike: dict[bytes, list[str]] = {}
    for name, one in sums.items():
        alike.setdefault(one.prompts.tobytes(), []).append(name)
    drawn: dict[str, Float64[np.ndarray, " R"]] = {}
    for names in alike.values():
        drawn |= _resample_alike({name: sums[name] for name in names}, bootstrap)
    return drawn


def _resample_alike(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """The same for figures of the same prompts."""
    strata = next(iter(sums.values())).strata
    order = np.argsort(strata, kind="stable")
    gaps = np.hstack([one.gaps for one in sums.values()])[order]
    shares = np.hstack([one.shares for one in sums.values()])[order]
    ends = np.cumsum([one.gaps.shape[1] for one in sums.values()])[:-1]
    moved, done = np.zeros((bootstrap.resamples, gaps.shape[1])), 0
    for counts in _multiplicities(np.bincount(strata), bootstrap):
        left = counts @ shares
        # A part that a resample leaves without any prompt keeps its value.
        np.divide(counts @ gaps, left, out=moved[done : done + len(counts)], where=left > 1e-12)
        done += len(counts)
    each = np.split(moved, ends, axis=1)
    return {name: parts.sum(1) for name, parts in zip(sums, each, strict=True)}


def _multiplicities(sizes: Int64[np.ndarray, " S"], bootstrap: Bootstrap) -> Iterator[Float64[np.ndarray, "r C"]]:
    """How often each prompt is in each resample, some resamples at a time.

    Args:
        sizes: [S] prompts of each stratum; the prompts are in the strata's order.
    """
    size, width = int(sizes.sum()), np.repeat(sizes, sizes).astype(np.float64)
    random, rows = np.random.default_rng(bootstrap.seed), max(1, _SLOTS // size)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes) + size * np.arange(rows)[:, None]
    for first in range(0, bootstrap.resamples, rows):
        count = min(rows, bootstrap.resamples - first)
        drawn = random.random((count, size))
        drawn *= width
        place = drawn.astype(np.int64)
        place += start[:count]
        yield np.bincount(place.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)
