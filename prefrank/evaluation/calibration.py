"""Calibration: are a model's probabilities worth their name, and what does it gain by abstaining?

P(ahead wins) = sigmoid(lead / T); a pair's confidence is the larger of P and 1 - P, and it is right if the preferred
reply leads (half right if neither does). T is fitted by log loss (Guo et al. 2017, arXiv 1706.04599, section 4.2).

Surprising, and on purpose:
- "scaled" figures are always held out: with a temperature that was fitted elsewhere, or cross-fitted, each pair's
  temperature coming from other prompts.
- A failed score makes its pair one of confidence 1/2 that is lost. Log loss and Brier then have no value.
- Every pair weighs as in `accuracy`: its share of its item. Log loss and Brier take tied and soft labels too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int16, Int64

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadData, BadInput, short
from prefrank.evaluation.estimates import Bootstrap, Estimate, Figure, distinct, estimate_all, in_blocks
from prefrank.evaluation.items import Item, Ordered, Pairs, Sample, ordered, sample_of, shares
from prefrank.evaluation.metrics import log_losses, wins
from prefrank.evaluation.run import check_items, data_hash, score_once
from prefrank.evaluation.slices import figure_of, in_groups, share_of
from prefrank.io.json_files import Fields
from prefrank.types import Comparison

NUM_BINS = 15
FOLDS = 5
"""Of a cross-fitted temperature."""

MIN_PAIRS = 20
"""Fewer pairs with different scores give no temperature."""

LEAST, MOST = 1e-100, 1e100
"""Of a temperature; one beyond them is no scale that a model scores on."""

_FEW = 1 << 18
"""Pairs that are added up in the order they always were."""

COVERAGES = tuple(share / 100 for share in range(100, 0, -5))


@dataclass(frozen=True, slots=True)
class Temperature:
    """What scores are divided by to become logits.

    Args:
        value: from `LEAST` to `MOST`; above 1 for a model that is too sure of itself.
        n: pairs it was fitted on.
        prompts: distinct prompts among them.
        fitted_on: what those were, for people.

    Raises:
        BadInput: another value.
    """

    value: float
    n: int
    prompts: int
    fitted_on: str = ""

    def __post_init__(self) -> None:
        check_number("a temperature", self.value, least=LEAST, below=2 * MOST)


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of about one confidence.

    Args:
        confidence: their mean.
        accuracy: theirs; calibrated if the two agree.
        low, high: Wilson's interval of the accuracy (`share_of`).
        n: pairs.
    """

    confidence: float
    accuracy: float
    low: float
    high: float
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

    ece: Estimate
    ece_equal_mass: Estimate
    mce: Estimate
    log_loss: Estimate
    brier: Estimate
    auroc: Estimate
    n: int
    bins: tuple[Bin, ...]
    bins_equal_mass: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Reliability of the probabilities as they are, and with a temperature.

    Args:
        temperature: None where none can be fitted.
        raw: at temperature 1.
        scaled: held out; None where no temperature can be fitted.
        note: why not.
    """

    temperature: float | None
    fitted_on: str | None
    raw: Reliability
    scaled: Reliability | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "fitted_on": self.fitted_on,
            "raw": self.raw.to_json(),
            "scaled": self.scaled and self.scaled.to_json(),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Point:
    """The accuracy on the most confident pairs.

    Args:
        coverage: their share of all, by weight. Pairs of equal confidence are kept together, so it can be above what
            was asked for.
        threshold: the least lead, either way, that is kept.
        accuracy, low, high: and its interval.
        n: pairs.
    """

    coverage: float
    threshold: float
    accuracy: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Abstention:
    """What a model that abstains from its least confident pairs gets on the rest.

    Args:
        points: coverage descending from 1.
        area: under the curve of risk (1 - accuracy) over coverage: less is better (Geifman and El-Yaniv 2017, arXiv
            1705.08500).
    """

    points: tuple[Point, ...]
    area: float | None

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(point) for point in self.points]


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def calibration(
    sample: Sample, bootstrap: Bootstrap | None = None, *, temperature: Temperature | None = None
) -> Calibration:
    """Calibration of a sample, raw and scaled.

    Args:
        temperature: fitted on other data, such as `stored_temperature(model.calibration)`. None: cross-fitted here.
    """
    style, pairs = bootstrap or Bootstrap(), sample.pairs
    fitted, scaled, note = temperature, None, None
    try:
        if temperature is None:
            _check_prompts(sample, FOLDS)  # before anything is fitted
        fitted = temperature or fit_temperature(sample, fitted_on="cross-fitted, each of these prompts by others")
        scaled = _divided(sample.lead, temperature.value) if temperature else cross_fitted(sample, seed=style.seed)
    except BadInput as error:
        note = str(error)
    leads = {"raw": sample.lead} | ({"scaled": scaled} if scaled is not None else {})
    judged = {
        key: _judged(lead, pairs, sample.sizes if key == "raw" else ordered(np.abs(np.nan_to_num(lead))))
        for key, lead in leads.items()
    }
    figures = {key: _figures(lead, judged[key], pairs) for key, lead in leads.items()}
    found = estimate_all({f"{key} {name}": one for key, those in figures.items() for name, one in those.items()}, style)
    raw, *rest = (
        _reliability(judged[key], pairs, {name: found[f"{key} {name}"] for name in figures[key]}, style.confidence)
        for key in leads
    )
    if not rest or fitted is None:
        return Calibration(None, None, raw, None, note)
    return Calibration(fitted.value, fitted.fitted_on, raw, rest[0])


def abstention(sample: Sample, bootstrap: Bootstrap | None = None) -> Abstention:
    """Accuracy at coverage 100, 95, ..., 5 %, the largest leads kept; no point without decided pairs.

    A pair keeps its weight when others of its item are left out. Failed scores are the first to be left out.
    """
    pairs, level = sample.pairs, (bootstrap or Bootstrap()).confidence
    weight, right, sizes = pairs.share, sample.wins, sample.sizes
    kept = np.flatnonzero(weight > 0)
    if not len(kept):
        return Abstention((), None)
    masses = np.bincount(sizes.place, weight)
    used = np.flatnonzero(masses)[::-1]  # from the most confident on, those of decided pairs
    mass = masses[used]
    covered = np.cumsum(mass) / mass.sum()
    risk = np.cumsum(np.bincount(sizes.place, weight * (1 - right))[used]) / np.cumsum(mass)
    points = []
    # A hair less than asked for, or rounding in the sum could keep a pair too many.
    for cut in dict.fromkeys(np.searchsorted(covered, np.array(COVERAGES) - 1e-9).tolist()):
        threshold = float(sizes.values[used[cut]])
        kept = kept[sizes.place[kept] >= used[cut]]  # fewer each time
        one = share_of(right, weight, pairs, confidence=level, kept=kept)
        points.append(Point(float(covered[cut]), threshold, one.value, one.low, one.high, one.n))
    return Abstention(tuple(points), float(mass @ risk / mass.sum()))


def fit_temperature(sample: Sample, *, fitted_on: str = "") -> Temperature:
    """The temperature of least log loss; tied and soft labels count as in `log_loss`, failed scores do not.

    Raises:
        BadInput: too few pairs, or scores for which no temperature is best: all pairs right, or no better than chance.
    """
    usable = ~np.isnan(sample.lead)
    value = _fit(*_fitted(sample))
    prompts = len(distinct(sample.pairs.prompts[usable]))
    return Temperature(value, int(usable.sum()), prompts, fitted_on)


def _check_prompts(sample: Sample, folds: int) -> int:
    """The number of prompts, of which each fold wants one."""
    size = int(sample.pairs.prompt.max(initial=-1)) + 1
    if size < folds:
        raise BadInput(f"there are {size} prompts to cross-fit a temperature in {folds} folds; wanted at least {folds}")
    return size


def cross_fitted(sample: Sample, *, folds: int = FOLDS, seed: int = 0) -> Float64[np.ndarray, " P"]:
    """Leads divided by a temperature that was fitted on other prompts.

    Raises:
        BadInput: fewer prompts than folds, or a fold whose others give no temperature.
    """
    check_whole("folds", folds, least=2)
    check_whole("the seed", seed, least=0)
    size = _check_prompts(sample, folds)
    fold = (np.random.default_rng(seed).permutation(size) % folds)[sample.pairs.prompts]
    parts, scaled = _fitted(sample), sample.lead.copy()
    for one in range(folds):
        mine = fold == one
        scaled[mine] = _divided(sample.lead[mine], _fit(*(part[~mine] for part in parts)))
    return scaled


def _divided(lead: Float64[np.ndarray, " P"], temperature: float) -> Float64[np.ndarray, " P"]:
    """Logits, finite where the leads are."""
    with np.errstate(over="ignore"):
        return np.clip(lead / temperature, -_LARGEST, _LARGEST)


_LARGEST = float(np.finfo(np.float64).max)


def calibrate(
    folder: str | Path,
    comparisons: Sequence[Comparison | Item],
    *,
    fitted_on: str,
    head: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    kernels: str | None = None,
    max_length: int | None = None,
    max_tokens: int | None = None,
    num_threads: int | None = None,
    deterministic: bool = False,
    empty_score: float | None = None,
    pre_rendered: bool = False,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Score comparisons with a saved model, fit its temperature and store it in the folder's prefrank.json.

    The weights and the fingerprint stay. What is stored is for the model as it is loaded here: with another head,
    precision, length, `pre_rendered` or `empty_score` its scores are others, and `RewardModel.calibration` is None.

    Args:
        comparisons: that the model was not trained on; fitted on its training data it would look better than it is.
        fitted_on: what they are, for people, such as "anthropic_rlhf:validation".
        head to trust_remote_code: as `RewardModel.load`.

    Returns:
        What was stored: temperature, fitted_on, data (sha256), model (fingerprint), pairs, prompts, log_loss (before),
        scaled_log_loss (cross-fitted), prefrank (version), and pre_rendered and empty_score where they were given.

    Raises:
        BadInput: a folder without prefrank.json or one to resume training from; something else than comparisons;
            otherwise as `fit_temperature`.
        BadData: no comparisons.
        NotFound, BadModel: as `RewardModel.load`.
        CannotWrite: prefrank.json cannot be written.
    """
    from prefrank.scoring.reward_model import RewardModel
    from prefrank.scoring.temperature import check_calibratable, store_calibration

    check_items(comparisons)
    if not comparisons:
        raise BadData("there are no comparisons to calibrate on; wanted at least one")
    if not isinstance(fitted_on, str):
        raise BadInput(f"fitted_on is {short(fitted_on)}; wanted a string, what the comparisons are")
    check_calibratable(folder)
    model = RewardModel.load(
        folder,
        head=head,
        device=device,
        precision=precision,
        kernels=kernels,
        max_length=max_length,
        max_tokens=max_tokens,
        num_threads=num_threads,
        deterministic=deterministic,
        empty_score=empty_score,
        pre_rendered=pre_rendered,
        trust_remote_code=trust_remote_code,
    )
    sample = sample_of(comparisons, score_once(model.score_pairs, comparisons))
    temperature, scaled = fit_temperature(sample), cross_fitted(sample)
    usable = np.where(np.isnan(sample.lead), 0.0, shares(sample.pairs, np.ones(len(sample.lead), bool)))

    def mean_loss(lead: Float64[np.ndarray, " P"]) -> float:
        return float(np.nan_to_num(log_losses(lead, sample.pairs)) @ usable / usable.sum())

    facts = {
        "temperature": temperature.value,
        "fitted_on": fitted_on,
        "data": data_hash(comparisons),
        "model": model.fingerprint,
        "pairs": temperature.n,
        "prompts": temperature.prompts,
        "log_loss": mean_loss(sample.lead),
        "scaled_log_loss": mean_loss(scaled),
        "prefrank": version("prefrank"),
    }
    if pre_rendered:
        facts["pre_rendered"] = True
    if empty_score is not None:
        facts["empty_score"] = empty_score
    store_calibration(folder, facts)
    return facts


def stored_temperature(facts: Mapping[str, Any]) -> Temperature:
    """The temperature of a `RewardModel.calibration`.

    Raises:
        BadInput: facts that are of other types, or a temperature that is no scale.
    """
    fields = Fields(facts, "the stored calibration", error=BadInput)
    value = fields.number("temperature", least=LEAST, most=MOST)
    pairs, prompts = fields.integer("pairs", 0), fields.integer("prompts", 0)
    return Temperature(value, pairs, prompts, fields.text("fitted_on", ""))


def _fitted(sample: Sample) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """Lead, label and weight of every pair; a failed pair's lead of 0 costs the same at any temperature."""
    pairs = sample.pairs
    return np.nan_to_num(sample.lead), pairs.probability, shares(pairs, np.ones(len(sample.lead), bool))


def _fit(lead: Float64[np.ndarray, " P"], label: Float64[np.ndarray, " P"], weight: Float64[np.ndarray, " P"]) -> float:
    """The root of the log loss' slope, which rises with b = 1 / T: the loss is convex in b."""
    used = np.count_nonzero(lead)
    if used < MIN_PAIRS:
        raise BadInput(f"there are {used} pairs with different scores to fit a temperature on; wanted {MIN_PAIRS}")
    unit = float(np.abs(lead).max())
    x = lead / unit

    def slope(b: float) -> float:
        return float(weight @ (x * (_sigmoid(b * x) - label)))

    if weight @ np.where(x > 0, x * (1 - label), -x * label) <= 0:  # the slope at b = infinity
        raise BadInput(
            f"all {used} pairs with different scores are in the right order, so the log loss only falls as the"
            " temperature goes to 0; give more, or harder, comparisons"
        )
    if slope(0.0) >= 0:
        raise BadInput(
            f"the scores of {used} pairs follow the labels no better than chance, so no temperature is best;"
            " are the labels, or the scores, the wrong way round?"
        )
    low, high = 0.0, 1.0
    while high < 2 * MOST and slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):  # as near as numbers are
            break
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    if not LEAST <= (value := unit / high) <= MOST:
        raise BadInput(
            f"the best temperature for the scores of {used} pairs is {value:g}; wanted {LEAST:g} to {MOST:g}: scale the"
            " scores, or look for ones that are out of all reason"
        )
    return value


def _sigmoid(x: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
    return 0.5 * (1 + np.tanh(x / 2))


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Decided pairs as calibration sees them; arrays are [P], weights 0 for the others.

    Args:
        place: of the lead's size among the distinct sizes, which order pairs where the confidence is rounded to 1.
        numbers: of the bins of equal width and of equal mass.
    """

    weight: Float64[np.ndarray, " P"]
    right: Float64[np.ndarray, " P"]
    place: Int64[np.ndarray, " P"]
    confidence: Float64[np.ndarray, " P"]
    numbers: tuple[Int16[np.ndarray, " P"], Int16[np.ndarray, " P"]]


def _judged(lead: Float64[np.ndarray, " P"], pairs: Pairs, sizes: Ordered) -> _Judged:
    weight, place, confidences = pairs.share, sizes.place, _sigmoid(sizes.values)
    positions = (2 * confidences - 1, _middles(place, weight))
    width, mass = (np.minimum((each * NUM_BINS).astype(np.int16), NUM_BINS - 1)[place] for each in positions)
    return _Judged(weight, wins(lead), place, confidences[place], (width, mass))


def _figures(lead: Float64[np.ndarray, " P"], judged: _Judged, pairs: Pairs) -> dict[str, Figure]:
    """Everything that gets an interval, by its name in `Reliability`.

    A bin's gap has a side, and with the sides as they came out an expected error is a mean over pairs of (right -
    confidence) or its opposite; AUROC is one of itself plus each pair's influence on it.
    """
    every = shares(pairs, np.ones(len(lead), bool))
    brier = np.empty(len(lead))
    for part in in_blocks(len(lead)):
        win, label = _sigmoid(lead[part]), pairs.probability[part]
        brier[part] = label * (1 - win) ** 2 + (1 - label) * win**2
    weight, off = judged.weight, judged.right - judged.confidence
    found = {
        "log_loss": figure_of(log_losses(lead, pairs), every, pairs, bounds=None),
        "brier": figure_of(brier, every, pairs),
        "auroc": figure_of(*_auroc(judged), pairs, bounds=None),
    }
    for name, number in zip(("ece", "ece_equal_mass"), judged.numbers, strict=True):
        side = np.sign(np.bincount(number, weight * off, NUM_BINS))
        found[name] = figure_of(side[number] * off, weight, pairs, bounds=None)
    mass = np.bincount(judged.numbers[0], weight, NUM_BINS)
    gap = np.bincount(judged.numbers[0], weight * off, NUM_BINS) / np.where(mass > 0, mass, 1.0)
    largest = int(np.abs(gap).argmax())
    inside = np.where(judged.numbers[0] == largest, weight, 0.0)
    found["mce"] = figure_of(np.sign(gap[largest]) * off, inside, pairs, bounds=None)
    return found


def _reliability(judged: _Judged, pairs: Pairs, found: Mapping[str, Estimate], level: float) -> Reliability:
    bins, bins_equal_mass = (
        tuple(_bin(kept, judged, pairs, level) for _, kept in in_groups(number, judged.weight))
        for number in judged.numbers
    )
    return Reliability(
        **{name: _from_zero(one) if name in ("ece", "ece_equal_mass", "mce") else one for name, one in found.items()},
        n=int(np.count_nonzero(judged.weight)),
        bins=bins,
        bins_equal_mass=bins_equal_mass,
    )


def _from_zero(gap: Estimate) -> Estimate:
    return gap if gap.low is None else replace(gap, low=max(0.0, gap.low))


def _middles(place: Int64[np.ndarray, " P"], weight: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " D"]:
    """The share of the mass below each distinct value, with half of its equals', given the places of all."""
    mass = np.bincount(place, weight)
    return (np.cumsum(mass) - mass / 2) / (mass.sum() or 1.0)


def _bin(kept: Int64[np.ndarray, " n"], judged: _Judged, pairs: Pairs, level: float) -> Bin:
    accuracy = share_of(judged.right, judged.weight, pairs, confidence=level, kept=kept)
    weight, confidence = judged.weight[kept], judged.confidence[kept]
    if len(judged.weight) <= _FEW:  # zeros change the last digit of a sum, and run files were written with them
        weight, confidence = np.zeros(len(judged.weight)), judged.confidence
        weight[kept] = judged.weight[kept]
    sure = float(np.average(confidence, weights=weight))
    return Bin(sure, accuracy.value or 0.0, accuracy.low or 0.0, accuracy.high or 0.0, accuracy.n)


def _auroc(judged: _Judged) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """P(a right pair is more confident than a wrong one), equals half, plus each pair's influence; and the weights.

    A pair of equal scores is half right and half wrong. All weights are 0 where there are no right or no wrong pairs.
    """
    weight, right = judged.weight, judged.right
    good, bad = weight * right, weight * (1 - right)
    both = good.sum() * bad.sum()
    if not both > 0:
        return np.zeros_like(weight), np.zeros_like(weight)
    place = judged.place
    wrong, fine = np.bincount(place, bad), np.bincount(place, good)
    below, above = np.cumsum(wrong) - wrong / 2, good.sum() - np.cumsum(fine) + fine / 2
    value, all_good, all_bad = 0.0, good.sum(), bad.sum()
    for part in in_blocks(len(good)):
        value += good[part] @ below[place[part]]
    value /= both
    found, mass = np.empty(len(good)), weight.sum()
    for part in in_blocks(len(good)):
        own, at = right[part], place[part]
        slope = own * below[at] + (1 - own) * above[at]
        influence = (slope - value * (own * all_bad + (1 - own) * all_good)) / both
        found[part] = value + mass * influence
    return found, weight
