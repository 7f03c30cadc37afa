"""Values with their uncertainty: Wilson intervals, and a bootstrap that resamples prompts.

A figure's interval depends on that figure alone, not on what is estimated beside it.
- Where every prompt has one plain right-or-wrong item, Wilson's interval needs no resampling.
- A bootstrap cannot see past its sample (all right, five times, would give 100 % to 100 %). Where all prompts agree,
  the interval allows for the share of them that may yet depart, by Wilson; inside a sum this is added to the
  bootstrap's limits by MOVER (Zou and Donner 2008).
- A stratum of one prompt would add no spread, so such strata are resampled as one.
- Nothing is made from nothing: no items, no value.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.stats.arrays import distinct, in_blocks
from prefrank.stats.bootstrap import Bootstrap, bca, resample
from prefrank.stats.figures import Figure, Sums, Unit, all_agree, sums_of
from prefrank.stats.intervals import Interval, wilson

FEW_PROMPTS = 20
"""With fewer, prompts never count for more than one trial each."""


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


def estimate_all(
    figures: Mapping[str, Figure], bootstrap: Bootstrap, *, strata: Int64[np.ndarray, " G"] | None = None
) -> dict[str, Estimate]:
    """Every figure with its interval. Figures of the same prompts share one set of resamples.

    Args:
        strata: [G] of prompt number 0, 1, ...: prompts are resampled inside their stratum, so that a benchmark's fixed
            subsets keep their sizes. None: all prompts are one stratum.
    """
    sums = {name: sums_of(figure, strata) for name, figure in figures.items()}
    bootstrapped = {name: each for name, each in sums.items() if each is not None and each.bootstrapped}
    drawn = resample(bootstrapped, bootstrap)
    return {
        name: _estimate(figure, sums[name], drawn.get(name), bootstrap.confidence) for name, figure in figures.items()
    }


def _estimate(
    figure: Figure, sums: Sums | None, drawn: Float64[np.ndarray, " R"] | None, confidence: float
) -> Estimate:
    if sums is None:
        prompts = np.concatenate([np.zeros(0, np.int64), *(part.prompts for part in figure.parts)])
        return Estimate(None, None, None, figure.n, figure.unit, len(distinct(prompts)))
    low, high = _interval(figure, sums, drawn, confidence)
    return Estimate(sums.value, low, high, figure.n, figure.unit, len(sums.prompts))


def _interval(
    figure: Figure, sums: Sums, drawn: Float64[np.ndarray, " R"] | None, confidence: float
) -> Interval | tuple[None, None]:
    value, size = sums.value, len(sums.prompts)
    if sums.plain:
        return wilson(value * size, size, confidence=confidence)
    below, above = (0.0, 0.0) if drawn is None else bca(drawn, sums, confidence)
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
    by_prompts: dict[bytes, Float64[np.ndarray, " 2"]] = {}
    for j, part in enumerate(figure.parts):
        bounds = figure.bounds if len(figure.parts) == 1 and figure.bounds else part.bounds
        for stratum in distinct(sums.strata[sums.shares[:, j] > 0]).tolist():
            held = (sums.strata == stratum) & (sums.shares[:, j] > 0)
            if all_agree(sums.means[held, j]):
                reach = wilson(0.0, int(held.sum()), confidence=confidence)[1] * float(sums.shares[held, j].sum())
                mean = sums.means[held, j][0]
                ends = np.array([max(0.0, mean - bounds[0]), max(0.0, bounds[1] - mean)])
                both = abs(part.coefficient) * reach * (ends if part.coefficient > 0 else ends[::-1])
                by_prompts[held.tobytes()] = by_prompts.get(held.tobytes(), np.zeros(2)) + both
    down, up = np.sqrt(sum((ends**2 for ends in by_prompts.values()), np.zeros(2)))
    return float(down), float(up)


def weighted_share(
    right: Float64[np.ndarray, " P"],
    weight: Float64[np.ndarray, " P"],
    prompts: Int64[np.ndarray, " P"],
    *,
    num_prompts: int,
    confidence: float,
    kept: Int64[np.ndarray, " n"] | None = None,
) -> Estimate:
    """The weighted mean of results between 0 and 1, with Wilson's interval, over `kept` or all that weigh anything.

    Its number of trials is what makes the binomial variance that of the weighted mean over prompts (the effective
    sample size of Korn and Graubard 1998): with one plain pair for each prompt their number, at most that of pairs.
    """
    kept = np.flatnonzero(weight > 0) if kept is None else kept
    if not len(kept):
        return Estimate(None, None, None, 0, "pairs", 0)
    blocks = [kept[block] for block in in_blocks(len(kept))]
    mass = sum(weight[block].sum() for block in blocks)
    value = min(float(sum((weight[block] / mass) @ right[block] for block in blocks)), 1.0)
    if num_prompts == 1:  # one long list says nothing of a spread between prompts
        return Estimate(value, *wilson(value, 1, confidence=confidence), len(kept), "pairs", 1)
    pulls, counts = np.zeros(num_prompts), np.zeros(num_prompts, np.int64)
    for block in blocks:
        pulls += np.bincount(prompts[block], weight[block] / mass * (right[block] - value), num_prompts)
        counts += np.bincount(prompts[block], minlength=num_prompts)
    held = int(np.count_nonzero(counts))
    variance = float(pulls @ pulls)
    most = len(kept) if held >= FEW_PROMPTS else held
    trials = max(1, round(min(value * (1 - value) / variance, most))) if variance > 1e-20 else held
    return Estimate(value, *wilson(value * trials, trials, confidence=confidence), len(kept), "pairs", held)
