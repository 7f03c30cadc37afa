"""Figures before they have an interval: sums of weighted means over items, and what each prompt adds to them.

Every score of every benchmark is of this form, so one bootstrap and one test serve them all. The difference of two
models on the same items is a figure too (`minus`), and so is any statistic given by its value plus each unit's
influence on it (its first-order change when the unit gets a little more weight), as `ratio` is: influences average to
zero, so the mean is the statistic, exactly, and its resampled spread is the delta method's. A sum with a part missing
has no value; it is not a sum over the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput
from prefrank.stats.arrays import distinct

Unit = Literal["pairs", "comparisons", "items", "prompts", "votes"]
Bounds = tuple[float, float]

_MOST = 1e90
"""A figure further from 0 has no value: its squares and sums would not be numbers."""


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
    """The sum over parts of coefficient times weighted mean.

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


def mean_figure(
    values: Float64[np.ndarray, " n"],
    prompts: Int64[np.ndarray, " n"],
    weights: Float64[np.ndarray, " n"] | None = None,
    *,
    n: int | None = None,
    unit: Unit = "items",
    bounds: Bounds | None = (0.0, 1.0),
) -> Figure:
    """A figure that is one weighted mean, or without parts where there is nothing to average.

    Args:
        n: as reported; None: the number of values.
    """
    part = Part(values, prompts, weights, bounds=bounds or (0.0, 1.0))
    return Figure((part,) if len(values) else (), len(values) if n is None else n, unit, bounds)


def undefined(prompts: Int64[np.ndarray, " n"]) -> Figure:
    """A figure of these items that has no value, so that two scorers' figures remain of the same items."""
    return mean_figure(np.full(len(prompts), np.nan), prompts, bounds=None)


def ratio(
    top: Float64[np.ndarray, " n"], bottom: Float64[np.ndarray, " n"], prompts: Int64[np.ndarray, " n"]
) -> Figure:
    """mean(top) / mean(bottom) over items; no value where the bottom is zero."""
    if not len(top) or abs(bottom.mean()) < 1e-12:
        return undefined(prompts)
    value = top.mean() / bottom.mean()
    return mean_figure(value + (top - value * bottom) / bottom.mean(), prompts, bounds=None)


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
        if not all_agree(means[held, j]):
            gaps[:, j] = part.coefficient * (totals - mean * shares[:, j])
    own = np.zeros(len(prompts), np.int64) if strata is None else _pooled(strata[prompts])
    plain = not own.any() and _plain(figure, len(prompts))
    return Sums(value, prompts, own, gaps, shares, means, added, plain)


def all_agree(means: Float64[np.ndarray, " c"]) -> bool:
    """Whether all are equal but for rounding."""
    return bool(np.ptp(means) <= 1e-12 * max(1.0, float(np.abs(means).max())))


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
