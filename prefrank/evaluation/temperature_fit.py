"""The temperature that makes scores logits: fitted by log loss, held out, and stored with a model.

P(ahead wins) = sigmoid(margin / T), with T of least log loss (Guo et al. 2017, arXiv 1706.04599, section 4.2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadData, BadInput, short
from prefrank.evaluation.items import Item
from prefrank.evaluation.metrics import log_losses
from prefrank.evaluation.one_scorer import check_items, data_hash, score_once
from prefrank.evaluation.samples import Sample, sample_of, shares
from prefrank.io.json_files import Fields
from prefrank.stats.arrays import distinct
from prefrank.stats.regression import best_slope
from prefrank.types import Comparison

FOLDS = 5
"""Of a cross-fitted temperature."""

MIN_PAIRS = 20
"""Fewer pairs with different scores give no temperature."""

LEAST, MOST = 1e-100, 1e100
"""Of a temperature; one beyond them is not a scale that a model scores on."""


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


def fit_temperature(sample: Sample, *, fitted_on: str = "") -> Temperature:
    """The temperature of least log loss; tied and soft labels count as in `log_loss`, failed scores do not.

    Raises:
        BadInput: too few pairs, or scores for which no temperature is best: all pairs right, or no better than chance.
    """
    usable = ~np.isnan(sample.margin)
    value = _fit(*_fitted(sample))
    prompts = len(distinct(sample.pairs.prompts[usable]))
    return Temperature(value, int(usable.sum()), prompts, fitted_on)


def check_prompts(sample: Sample, folds: int) -> int:
    """The number of prompts, of which each fold wants one."""
    size = int(sample.pairs.prompt.max(initial=-1)) + 1
    if size < folds:
        raise BadInput(f"there are {size} prompts to cross-fit a temperature in {folds} folds; wanted at least {folds}")
    return size


def cross_fitted(sample: Sample, *, folds: int = FOLDS, seed: int = 0) -> Float64[np.ndarray, " P"]:
    """Margins divided by a temperature that was fitted on other prompts.

    Raises:
        BadInput: fewer prompts than folds, or a fold whose others give no temperature.
    """
    check_whole("folds", folds, least=2)
    check_whole("the seed", seed, least=0)
    size = check_prompts(sample, folds)
    fold = (np.random.default_rng(seed).permutation(size) % folds)[sample.pairs.prompts]
    parts, scaled = _fitted(sample), sample.margin.copy()
    for number in range(folds):
        mine = fold == number
        scaled[mine] = divided(sample.margin[mine], _fit(*(part[~mine] for part in parts)))
    return scaled


def divided(margin: Float64[np.ndarray, " P"], temperature: float) -> Float64[np.ndarray, " P"]:
    """Logits, finite where the margins are."""
    with np.errstate(over="ignore"):
        return np.clip(margin / temperature, -_LARGEST, _LARGEST)


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
    template: str | None = None,
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
        template=template,
        trust_remote_code=trust_remote_code,
    )
    sample = sample_of(comparisons, score_once(model.score_pairs, comparisons))
    temperature, scaled = fit_temperature(sample), cross_fitted(sample)
    usable = np.where(np.isnan(sample.margin), 0.0, shares(sample.pairs, np.ones(len(sample.margin), bool)))

    def mean_loss(margin: Float64[np.ndarray, " P"]) -> float:
        return float(np.nan_to_num(log_losses(margin, sample.pairs)) @ usable / usable.sum())

    facts = {
        "temperature": temperature.value,
        "fitted_on": fitted_on,
        "data": data_hash(comparisons),
        "model": model.fingerprint,
        "pairs": temperature.n,
        "prompts": temperature.prompts,
        "log_loss": mean_loss(sample.margin),
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
        BadInput: facts that are of other types, or a temperature that is not a scale.
    """
    fields = Fields(facts, "the stored calibration", error=BadInput)
    value = fields.number("temperature", least=LEAST, most=MOST)
    pairs, prompts = fields.integer("pairs", 0), fields.integer("prompts", 0)
    return Temperature(value, pairs, prompts, fields.text("fitted_on", ""))


def _fitted(sample: Sample) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """Margin, label and weight of every pair; a failed pair's margin of 0 costs the same at any temperature."""
    pairs = sample.pairs
    return np.nan_to_num(sample.margin), pairs.probability, shares(pairs, np.ones(len(sample.margin), bool))


def _fit(
    margin: Float64[np.ndarray, " P"], label: Float64[np.ndarray, " P"], weight: Float64[np.ndarray, " P"]
) -> float:
    """1 / T is the slope of least log loss."""
    used = np.count_nonzero(margin)
    if used < MIN_PAIRS:
        raise BadInput(f"there are {used} pairs with different scores to fit a temperature on; wanted {MIN_PAIRS}")
    unit = float(np.abs(margin).max())
    slope = best_slope(margin / unit, label, weight, most=2 * MOST)
    if math.isinf(slope):
        raise BadInput(
            f"all {used} pairs with different scores are in the right order, so the log loss only falls as the"
            " temperature goes to 0; give more, or harder, comparisons"
        )
    if slope == 0:
        raise BadInput(
            f"the scores of {used} pairs follow the labels no better than chance, so no temperature is best;"
            " are the labels, or the scores, the wrong way round?"
        )
    if not LEAST <= (value := unit / slope) <= MOST:
        raise BadInput(
            f"the best temperature for the scores of {used} pairs is {value:g}; wanted {LEAST:g} to {MOST:g}: scale the"
            " scores, or look for ones that are out of all reason"
        )
    return value
