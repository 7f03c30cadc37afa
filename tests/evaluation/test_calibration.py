"""Confidence against accuracy, the temperature that brings them together, and abstaining."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, roc_auc_score

from prefrank.errors import BadInput
from prefrank.evaluation import Bootstrap, Sample, measure
from prefrank.evaluation.abstention import abstention
from prefrank.evaluation.calibration import calibration
from prefrank.evaluation.temperature_fit import Temperature, _fit, cross_fitted, fit_temperature, stored_temperature
from prefrank.io import schema
from prefrank.types import Preference
from tests.evaluation.samples import facts, pair_sample, random_sample, scores

FEW = Bootstrap(200)
NAN = math.nan


def drawn(seed: int, count: int, *, temperature: float = 1.0) -> Sample:
    """Pairs of a model whose probabilities are right once its scores are divided by the temperature."""
    random = np.random.default_rng(seed)
    size = np.abs(random.normal(0, 2, count))
    right = random.random(count) < 1 / (1 + np.exp(-size))
    return pair_sample(temperature * np.where(right, size, -size))


def test_error_by_bins_is_that_computed_by_hand() -> None:
    raw = calibration(pair_sample([math.log(3), -math.log(3), math.log(9)]), FEW).raw  # confidence 3/4 twice, 9/10
    assert raw.ece.value == pytest.approx(2 / 3 * 0.25 + 1 / 3 * 0.1)
    assert raw.mce.value == pytest.approx(0.25)
    assert raw.ece_equal_mass.value == pytest.approx(raw.ece.value)  # equal confidences stay together
    assert [(bin.confidence, bin.accuracy, bin.n) for bin in raw.bins] == [
        (pytest.approx(0.75), 0.5, 2),
        (pytest.approx(0.9), 1.0, 1),
    ]
    assert (raw.bins[0].low, raw.bins[0].high) == (pytest.approx(0.0945, abs=1e-3), pytest.approx(0.9055, abs=1e-3))
    assert raw.auroc.value == pytest.approx(
        0.75
    )  # of two right ones, one is more confident than the wrong one, one equal
    assert raw.n == 3


def test_bins_of_equal_mass_hold_equal_mass() -> None:
    raw = calibration(drawn(0, 3000), FEW).raw
    assert [bin.n for bin in raw.bins_equal_mass] == [200] * 15
    assert sum(bin.n for bin in raw.bins) == 3000


def test_a_calibrated_model_is_found_calibrated_and_an_overconfident_one_repaired() -> None:
    honest, loud = calibration(drawn(1, 6000), FEW), calibration(drawn(1, 6000, temperature=3.0), FEW)
    assert honest.temperature == pytest.approx(1.0, abs=0.06)
    assert loud.temperature == pytest.approx(3 * honest.temperature)
    assert honest.raw.ece.value < 0.025 < 0.1 < loud.raw.ece.value
    assert loud.scaled.ece.value < 0.025
    assert loud.scaled.log_loss.value == pytest.approx(honest.scaled.log_loss.value)
    assert loud.raw.auroc.value == pytest.approx(honest.raw.auroc.value)


def test_losses_and_auroc_are_those_of_other_libraries() -> None:
    sample = random_sample(2, items=300, prompts=300)
    raw, margin = calibration(sample, FEW).raw, sample.margin
    swap = np.random.default_rng(0).random(len(margin)) < 0.5
    win = 1 / (1 + np.exp(-np.where(swap, -margin, margin)))
    assert raw.brier.value == pytest.approx(brier_score_loss(~swap, win))
    assert raw.log_loss.to_json() == pytest.approx(measure(sample, bootstrap=FEW).log_loss.to_json())
    assert raw.auroc.value == pytest.approx(roc_auc_score(margin > 0, np.abs(margin)))


def test_auroc_weighs_pairs_as_accuracy_does() -> None:
    ranking = random_sample(3, items=1, replies=5)
    sample = Sample((*ranking.facts, *drawn(3, 40).facts), (*ranking.scores, *drawn(3, 40).scores))
    weight = [0.1] * 10 + [1.0] * 40
    want = roc_auc_score(sample.margin > 0, np.abs(sample.margin), sample_weight=weight)
    assert calibration(sample, FEW).raw.auroc.value == pytest.approx(want)


def test_temperature_has_the_least_log_loss_there_is() -> None:
    sample = random_sample(4, items=150, prompts=100, replies=4)
    result = fit_temperature(sample)
    each = np.repeat(1 / 6, 900)
    best = minimize_scalar(lambda t: each @ np.logaddexp(0, -sample.margin / t), bounds=(0.01, 100), method="bounded")
    assert result.value == pytest.approx(best.x, rel=1e-4)
    assert (result.n, result.prompts) == (900, 100)


def test_soft_labels_and_ties_pull_the_temperature_to_their_share() -> None:
    assert fit_temperature(pair_sample([1.0] * 30, labels=[0.8] * 30)).value == pytest.approx(1 / math.log(4))
    tied = pair_sample([1.0] * 40, labels=[1.0] * 20 + [0.5] * 20)  # 3/4 altogether
    assert fit_temperature(tied).value == pytest.approx(1 / math.log(3))


def test_soft_labels_and_ties_enter_the_brier_score_by_their_share() -> None:
    raw = calibration(pair_sample([1.0, 2.0], labels=[0.8, 0.5]), FEW).raw
    first, second = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    want = [0.8 * (1 - first) ** 2 + 0.2 * first**2, 0.5 * (1 - second) ** 2 + 0.5 * second**2]
    assert raw.brier.value == pytest.approx(sum(want) / 2)


@settings(deadline=None, max_examples=12)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_scores_times_a_factor_have_a_temperature_times_it(factor: float, seed: int) -> None:
    sample = drawn(seed, 200)
    larger = pair_sample((sample.margin * factor).tolist())
    assert fit_temperature(larger).value == pytest.approx(factor * fit_temperature(sample).value, rel=1e-9)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (pair_sample([1.0] * 19), "19 pairs with different scores"),
        (pair_sample([0.0] * 50), "0 pairs with different scores"),
        (pair_sample([2.0] * 50 + [0.0] * 3), "all 50 pairs with different scores are in the right order"),
        (pair_sample([1.0, -1.0] * 20), "no better than chance"),
        (pair_sample([-2.0] * 30 + [1.0] * 5), "no better than chance"),
    ],
)
def test_no_temperature_is_made_of_nothing(sample: Sample, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit_temperature(sample)
    result = calibration(sample, FEW)
    assert result.temperature is result.scaled is None
    assert message in result.note
    assert result.raw.log_loss.value > 0


def test_too_few_prompts_cannot_be_cross_fitted() -> None:
    sample = pair_sample([1.0, 2.0, -0.5, 3.0] * 10, prompts=[0.1, 0.2, 0.3, 0.4] * 10)
    with pytest.raises(BadInput, match="4 prompts to cross-fit a temperature in 5 folds"):
        cross_fitted(sample)
    result = calibration(sample, FEW)
    assert result.temperature is result.scaled is None


def test_a_pairs_temperature_comes_from_other_prompts() -> None:
    margins, prompts = drawn(5, 120).margin, np.repeat(np.arange(40), 3) / 40
    changed = margins.copy()
    changed[6:9] *= -5  # the third prompt's
    before = cross_fitted(pair_sample(margins.tolist(), prompts=prompts.tolist())) / margins
    after = cross_fitted(pair_sample(changed.tolist(), prompts=prompts.tolist())) / changed
    assert after[6:9] == pytest.approx(before[6:9])
    assert np.ptp(before.reshape(40, 3), axis=1).max() < 1e-12
    own_fold = np.isclose(before, before[6])
    assert len(np.unique(before.round(9))) == 5
    assert own_fold.sum() == 24
    assert not np.isclose(after[~own_fold], before[~own_fold]).any()


def test_a_given_temperature_is_used_and_named() -> None:
    sample = drawn(6, 300, temperature=2.0)
    given = Temperature(2.0, 500, 400, "starter:validation")
    result = calibration(sample, FEW, temperature=given)
    plain = calibration(drawn(6, 300), FEW).raw
    assert result.scaled.bins == plain.bins
    assert result.scaled.ece.to_json() == pytest.approx(plain.ece.to_json())
    assert result.temperature == 2.0
    assert result.fitted_on == "starter:validation"
    facts = {"temperature": 2.0, "pairs": 500, "prompts": 400, "fitted_on": "starter:validation", "model": "abc"}
    assert stored_temperature(facts) == given
    assert (result.temperature, result.fitted_on) == (given.value, given.fitted_on)


def test_a_failed_score_is_a_lost_pair_of_confidence_one_half() -> None:
    result = calibration(pair_sample([NAN, math.inf, 2.0, 3.0]), FEW).raw
    assert (result.bins[0].confidence, result.bins[0].accuracy, result.bins[0].n) == (0.5, 0.0, 2)
    assert result.log_loss.value is result.brier.value is None
    assert result.auroc.value == 1.0
    points = abstention(pair_sample([NAN, math.inf, 2.0, 3.0]), FEW).points
    assert (points[0].coverage, points[0].accuracy) == (1.0, 0.5)
    assert (points[-1].coverage, points[-1].threshold, points[-1].accuracy) == (0.25, 3.0, 1.0)


def test_failed_pairs_do_not_move_the_temperature() -> None:
    margins = drawn(7, 60).margin.tolist()
    with_failures = fit_temperature(pair_sample([*margins, NAN, NAN]))
    assert with_failures.value == pytest.approx(fit_temperature(pair_sample(margins)).value)
    assert with_failures.n == 60


def test_equal_scores_are_half_right() -> None:
    result = calibration(pair_sample([0.0] * 8), FEW).raw
    assert (result.ece.value, result.auroc.value) == (0.0, 0.5)
    assert result.brier.value == 0.25


def test_undecided_pairs_alone_give_no_figure_but_losses() -> None:
    sample = pair_sample([1.0, 2.0], labels=[0.5, 0.5])
    raw = calibration(sample, FEW).raw
    assert (raw.ece.value, raw.ece_equal_mass.value, raw.mce.value, raw.auroc.value, raw.n, raw.bins) == (
        None,
        None,
        None,
        None,
        0,
        (),
    )
    assert raw.log_loss.value > math.log(2)
    assert abstention(sample).points == ()
    assert abstention(sample).area is None


def test_abstaining_keeps_the_largest_margins() -> None:
    margins = [0.1 * k * (-1 if k in (1, 2, 3) else 1) for k in range(1, 21)]  # the three smallest are wrong
    result = abstention(pair_sample(margins), FEW)
    assert [point.coverage for point in result.points] == pytest.approx([k / 20 for k in range(20, 0, -1)])
    assert [point.n for point in result.points] == list(range(20, 0, -1))
    assert [point.accuracy for point in result.points] == pytest.approx(
        [17 / 20, 17 / 19, 17 / 18] + [1.0] * 17, abs=1e-12
    )
    assert result.points[0].threshold == pytest.approx(0.1)
    assert result.area == pytest.approx((3 / 20 + 2 / 19 + 1 / 18) / 20)
    assert result.points[0].low < 17 / 20 < result.points[0].high


def test_abstention_starts_from_accuracy_and_is_by_weight() -> None:
    sample = random_sample(8, items=60, prompts=40, replies=3)
    result = abstention(sample, FEW)
    assert result.points[0].accuracy == pytest.approx(measure(sample, bootstrap=FEW).accuracy.value)
    assert all(
        point.coverage == pytest.approx(point.n / 180) for point in result.points
    )  # all pairs of equal weight here
    assert result.points[4].coverage == pytest.approx(0.8)


def test_pairs_of_equal_margin_are_kept_together() -> None:
    result = abstention(pair_sample([1.0] * 5 + [-1.0] * 5), FEW)
    assert [(point.coverage, point.accuracy, point.n) for point in result.points] == [(1.0, 0.5, 10)]
    assert result.area == 0.5
    assert abstention(pair_sample([2.0, -1.0, -1.0, -1.0])).area == pytest.approx(1 / 4 * 0 + 3 / 4 * 3 / 4)


def test_probabilities_that_are_rounded_to_one_still_have_an_order() -> None:
    result = calibration(pair_sample([50.0, 60.0, -40.0, -3e38]), FEW)
    assert result.raw.auroc.value == pytest.approx(0.5)
    assert [bin.n for bin in result.raw.bins_equal_mass] == [1, 1, 1, 1]
    assert [bin.n for bin in result.raw.bins] == [4]


def test_the_json_has_the_run_files_keys_and_no_nan() -> None:
    for margins in ([1.0, -1.0] * 30, [NAN] * 3, drawn(9, 100).margin.tolist()):
        result = json.loads(json.dumps(schema.plain(calibration(pair_sample(margins), FEW)), allow_nan=False))
        assert set(result) == {"temperature", "fitted_on", "raw", "scaled", "note"}
        assert set(result["raw"]) == {
            *("ece", "ece_equal_mass", "mce", "log_loss", "brier", "auroc", "n", "bins", "bins_equal_mass"),
        }
        assert set(result["raw"]["bins"][0]) == {"confidence", "accuracy", "low", "high", "n"}
        points = json.loads(json.dumps(schema.plain(abstention(pair_sample(margins)))["points"], allow_nan=False))
        assert set(points[0]) == {"coverage", "threshold", "accuracy", "low", "high", "n"}
    assert set(result["scaled"]) == set(result["raw"])


def test_several_votes_in_an_item_share_its_weight() -> None:
    votes = facts([Preference(0, 1), Preference(0, 1), Preference(1, 0), Preference(1, 0)], [9, 9], prompt=0.5)
    sample = Sample((votes, *pair_sample([2.0]).facts), (scores([1.0, 0.0]), scores([2.0, 0.0])))
    result = calibration(sample, FEW).raw
    sure = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert result.ece.value == pytest.approx((sure[0] - 0.5) / 2 + (1 - sure[1]) / 2)


@pytest.mark.slow
def test_calibration_errors_and_auroc_have_the_intervals_of_resampling_prompts() -> None:
    sample, random = drawn(5, 300), np.random.default_rng(0)
    raw = calibration(sample, Bootstrap(resamples=2000)).raw
    assert len(np.unique(sample.pairs.prompt)) == 300
    resampled = [
        calibration(sample.take(random.integers(0, 300, 300).tolist()), Bootstrap(resamples=1)).raw.auroc.value
        for _ in range(400)
    ]
    assert raw.auroc.low == pytest.approx(np.quantile(resampled, 0.025), abs=0.02)
    assert raw.auroc.high == pytest.approx(np.quantile(resampled, 0.975), abs=0.02)
    for result in (raw.ece, raw.ece_equal_mass, raw.mce):
        assert 0 <= result.low < result.value < result.high
    assert raw.mce.n < raw.ece.n == 300


@pytest.mark.slow
def test_the_interval_of_the_calibration_error_holds_a_large_true_gap() -> None:
    """Confidence 0.8 throughout and half of the pairs right: the gap is 0.3."""
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        right = random.random(200) < 0.5
        result = calibration(pair_sample(np.where(right, 1.0, -1.0) * np.log(4)), Bootstrap(resamples=200)).raw.ece
        held += result.low <= 0.3 <= result.high
    assert 180 <= held <= 199


@pytest.mark.parametrize("value", [0, -1, True, None, "2", float("nan"), float("inf"), 1e308, 5e-324, 10**400, [1.0]])
def test_a_stored_temperature_that_is_no_scale_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match=r"the stored calibration: temperature is .*; wanted"):
        stored_temperature({"temperature": value})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324])
def test_a_given_temperature_that_is_no_scale_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match=r"a temperature is .*; wanted a finite number"):
        Temperature(value, 1, 1)


def test_scores_beyond_all_reason_give_no_temperature() -> None:
    random = np.random.default_rng(0)
    margin, label, weight = random.normal(1.0, 2.0, 200), np.ones(200), np.ones(200)
    assert _fit(margin, label, weight) > 0
    for scale in (1e300, 1e-300):
        with pytest.raises(BadInput, match="the best temperature for the scores of 200 pairs"):
            _fit(margin * scale, label, weight)
