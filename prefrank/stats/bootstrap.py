"""A bootstrap of figures that resamples prompts inside strata, with BCa limits (Efron 1987).

Items of one prompt are not independent, so what is resampled is prompts, never pairs; ten pairs of one prompt say
little more than one. scipy's bootstrap knows neither clusters nor strata, and would evaluate each figure from scratch
in every resample, where sums over prompts and one matrix product give all of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, short
from prefrank.limits import limit, past
from prefrank.stats.figures import Sums
from prefrank.stats.intervals import Interval

_SLOTS = 200_000
"""Prompts drawn at a time: few enough for the processor's cache."""


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


def resample(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """Each figure's distances from its value in R resamples; figures of the same prompts share them."""
    alike: dict[bytes, list[str]] = {}
    for name, figure in sums.items():
        alike.setdefault(figure.prompts.tobytes(), []).append(name)
    drawn: dict[str, Float64[np.ndarray, " R"]] = {}
    for names in alike.values():
        drawn |= _resample_alike({name: sums[name] for name in names}, bootstrap)
    return drawn


def _resample_alike(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, Float64[np.ndarray, " R"]]:
    """The same for figures of the same prompts."""
    strata = next(iter(sums.values())).strata
    order = np.argsort(strata, kind="stable")
    gaps = np.hstack([figure.gaps for figure in sums.values()])[order]
    shares = np.hstack([figure.shares for figure in sums.values()])[order]
    ends = np.cumsum([figure.gaps.shape[1] for figure in sums.values()])[:-1]
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


def bca(drawn: Float64[np.ndarray, " R"], sums: Sums, confidence: float) -> Interval:
    """BCa limits (Efron 1987) of resampled distances from a figure's value; the value is always inside."""
    normal, same = NormalDist(), 1e-11 * np.abs(drawn).max()  # equal to the sample but for rounding
    level = float(np.mean(drawn < -same) + np.mean(np.abs(drawn) <= same) / 2)
    # Half a resample from 0 and 1, so that the quantile stays finite.
    bias = normal.inv_cdf(min(max(level, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    skew, levels = _acceleration(sums), []
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
