"""Calibration: are a model's probabilities worth their name?

P(ahead wins) = sigmoid(margin / T); a pair's confidence is the larger of P and 1 - P, and it is right if its margin is
above 0 (half right if it is 0). T is fitted by log loss (Guo et al. 2017, arXiv 1706.04599, section 4.2).

- "scaled" figures are always held out: with a temperature that was fitted elsewhere, or cross-fitted, each pair's
  temperature coming from other prompts.
- A failed score makes its pair one of confidence 1/2 that is lost. Log loss and Brier then have no value.
- Every pair weighs as in `accuracy`: its share of its item. Log loss and Brier take tied and soft labels too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int16, Int64

from prefrank.errors import BadInput
from prefrank.evaluation.metrics import log_losses
from prefrank.evaluation.samples import Ordered, Pairs, Sample, ordered, shares, wins
from prefrank.evaluation.slices import figure_of, share_of
from prefrank.evaluation.temperature_fit import (
    FOLDS,
    Temperature,
    check_prompts,
    cross_fitted,
    divided,
    fit_temperature,
)
from prefrank.io.schema import Between
from prefrank.stats.arrays import in_blocks, in_groups
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Free, Probability, Share
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure
from prefrank.stats.ranks import auroc, below
from prefrank.stats.regression import sigmoid

NUM_BINS = 15
_FEW = 1 << 18
"""Pairs that are added up in the order they always were."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of about one confidence.

    Args:
        confidence: their mean.
        accuracy: theirs; calibrated if the two agree.
        low, high: Wilson's interval of the accuracy (`share_of`).
        n: pairs.
    """

    confidence: Probability
    accuracy: Probability
    low: Probability
    high: Probability
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How confidence and accuracy agree, over decided pairs.

    Args:
        ece: mean of |accuracy - confidence| over 15 bins of equal width from 1/2 to 1, weighed by their mass. Biased
            upwards on few pairs: chance alone makes bins differ, and the interval does not take that off.
        ece_equal_mass: the same over 15 bins of equal mass; equal confidences stay together.
        mce: the largest |accuracy - confidence| of the bins of equal width, however few pairs are in it.
        log_loss: as in `Metrics`.
        brier: mean squared distance of P from the label.
        auroc: how well confidence tells right from wrong, 1/2 by chance; no value where all are right or all wrong.
        n: decided pairs.
        bins, bins_equal_mass: those that are not empty, confidence ascending.
    """

    ece: Free
    ece_equal_mass: Free
    mce: Free
    log_loss: Free
    brier: Share
    auroc: Free
    n: int
    bins: tuple[Bin, ...]
    bins_equal_mass: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Reliability of the probabilities as they are, and with a temperature.

    Args:
        temperature: that the scores are divided by; None where none can be fitted.
        fitted_on: what it was fitted on, for people.
        raw: at temperature 1.
        scaled: held out; None where no temperature can be fitted.
        note: why not.
    """

    temperature: Annotated[float, Between(0.0)] | None
    fitted_on: str | None
    raw: Reliability
    scaled: Reliability | None
    note: str | None = None


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def calibration(
    sample: Sample, bootstrap: Bootstrap | None = None, *, temperature: Temperature | None = None
) -> Calibration:
    """Calibration of a sample, raw and scaled.

    Args:
        temperature: fitted on other data, such as `stored_temperature(model.calibration)`. None: cross-fitted here.
    """
    settings, pairs = bootstrap or Bootstrap(), sample.pairs
    fitted, scaled, note = temperature, None, None
    try:
        if temperature is None:
            check_prompts(sample, FOLDS)  # before anything is fitted
        fitted = temperature or fit_temperature(sample, fitted_on="cross-fitted, each of these prompts by others")
        scaled = divided(sample.margin, temperature.value) if temperature else cross_fitted(sample, seed=settings.seed)
    except BadInput as error:
        note = str(error)
    margins = {"raw": sample.margin} | ({"scaled": scaled} if scaled is not None else {})
    judged = {
        key: _judged(margin, pairs, sample.sizes if key == "raw" else ordered(np.abs(np.nan_to_num(margin))))
        for key, margin in margins.items()
    }
    figures = {key: _figures(margin, judged[key], pairs) for key, margin in margins.items()}
    estimates = estimate_all(
        {f"{key} {name}": figure for key, by_name in figures.items() for name, figure in by_name.items()}, settings
    )
    raw, *rest = (
        _reliability(
            judged[key], pairs, {name: estimates[f"{key} {name}"] for name in figures[key]}, settings.confidence
        )
        for key in margins
    )
    if not fitted or not rest:
        return Calibration(None, None, raw, None, note)
    return Calibration(fitted.value, fitted.fitted_on, raw, rest[0], None)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Decided pairs as calibration sees them; arrays are [P], weights 0 for the others.

    Args:
        place: of the margin's size among the distinct sizes, which order pairs where the confidence is rounded to 1.
        numbers: of the bins of equal width and of equal mass.
    """

    weight: Float64[np.ndarray, " P"]
    right: Float64[np.ndarray, " P"]
    place: Int64[np.ndarray, " P"]
    confidence: Float64[np.ndarray, " P"]
    numbers: tuple[Int16[np.ndarray, " P"], Int16[np.ndarray, " P"]]


def _judged(margin: Float64[np.ndarray, " P"], pairs: Pairs, sizes: Ordered) -> _Judged:
    weight, place, confidences = pairs.share, sizes.place, sigmoid(sizes.values)
    masses = np.bincount(place, weight)
    positions = (2 * confidences - 1, below(masses) / (masses.sum() or 1.0))
    width, mass = (np.minimum((each * NUM_BINS).astype(np.int16), NUM_BINS - 1)[place] for each in positions)
    return _Judged(weight, wins(margin), place, confidences[place], (width, mass))


def _figures(margin: Float64[np.ndarray, " P"], judged: _Judged, pairs: Pairs) -> dict[str, Figure]:
    """Everything that gets an interval, by its name in `Reliability`.

    A bin's gap has a side, and with the sides as they came out an expected error is a mean over pairs of (right -
    confidence) or its opposite; AUROC is one of itself plus each pair's influence on it.
    """
    every = shares(pairs, np.ones(len(margin), bool))
    brier = np.empty(len(margin))
    for part in in_blocks(len(margin)):
        win, label = sigmoid(margin[part]), pairs.probability[part]
        brier[part] = label * (1 - win) ** 2 + (1 - label) * win**2
    weight, off = judged.weight, judged.right - judged.confidence
    figures = {
        "log_loss": figure_of(log_losses(margin, pairs), every, pairs, bounds=None),
        "brier": figure_of(brier, every, pairs),
        "auroc": _auroc_figure(judged, pairs),
    }
    for name, number in zip(("ece", "ece_equal_mass"), judged.numbers, strict=True):
        side = np.sign(np.bincount(number, weight * off, NUM_BINS))
        figures[name] = figure_of(side[number] * off, weight, pairs, bounds=None)
    mass = np.bincount(judged.numbers[0], weight, NUM_BINS)
    gap = np.bincount(judged.numbers[0], weight * off, NUM_BINS) / np.where(mass > 0, mass, 1.0)
    largest = int(np.abs(gap).argmax())
    inside = np.where(judged.numbers[0] == largest, weight, 0.0)
    figures["mce"] = figure_of(np.sign(gap[largest]) * off, inside, pairs, bounds=None)
    return figures


def _reliability(judged: _Judged, pairs: Pairs, estimates: Mapping[str, Estimate], level: float) -> Reliability:
    bins, bins_equal_mass = (
        tuple(_bin(kept, judged, pairs, level) for _, kept in in_groups(number, judged.weight))
        for number in judged.numbers
    )
    return Reliability(
        **{
            name: _from_zero(estimate) if name in ("ece", "ece_equal_mass", "mce") else estimate
            for name, estimate in estimates.items()
        },
        n=int(np.count_nonzero(judged.weight)),
        bins=bins,
        bins_equal_mass=bins_equal_mass,
    )


def _from_zero(gap: Estimate) -> Estimate:
    return gap if gap.low is None else replace(gap, low=max(0.0, gap.low))


def _bin(kept: Int64[np.ndarray, " n"], judged: _Judged, pairs: Pairs, level: float) -> Bin:
    accuracy = share_of(judged.right, judged.weight, pairs, confidence=level, kept=kept)
    weight, confidence = judged.weight[kept], judged.confidence[kept]
    if len(judged.weight) <= _FEW:  # zeros change the last digit of a sum, and run files were written with them
        weight, confidence = np.zeros(len(judged.weight)), judged.confidence
        weight[kept] = judged.weight[kept]
    sure = float(np.average(confidence, weights=weight))
    return Bin(sure, accuracy.value or 0.0, accuracy.low or 0.0, accuracy.high or 0.0, accuracy.n)


def _auroc_figure(judged: _Judged, pairs: Pairs) -> Figure:
    """A pair of equal scores is half right and half wrong; no value where there are no right or no wrong pairs."""
    values = auroc(judged.right, judged.weight, judged.place)
    if values is None:
        return Figure((), 0, "pairs", None)
    return figure_of(values, judged.weight, pairs, bounds=None)
