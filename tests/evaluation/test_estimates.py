import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from prefrank.errors import BadInput
from prefrank.evaluation import Bootstrap, Estimate, cluster_bootstrap, estimate, wilson

FAST = Bootstrap(resamples=400)
SHARE = (0.0, 1.0)


def plain(values: list[float]) -> Estimate:
    """One right-or-wrong item for each prompt."""
    array = np.array(values, np.float64)
    prompts = np.arange(len(array))
    return estimate(array, np.ones(len(array)), prompts, n=len(array), unit="pairs", bounds=SHARE, bootstrap=FAST)


def test_wilson_of_eight_in_ten_by_hand() -> None:
    # z = 1.96: centre (0.8 + 0.19207) / 1.38415, half width 1.96 / 1.38415 * sqrt(0.016 + 0.0096036)
    assert wilson(8.0, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (52, 100), (700, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(successes: int, n: int, confidence: float) -> None:
    reference = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(float(successes), n, confidence=confidence) == pytest.approx(tuple(reference), abs=1e-12)


@hypothesis_settings(deadline=None)
@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_holds_its_proportion_and_stays_in_range(n: int, share: float) -> None:
    successes = round(2 * share * n) / 2
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_proportions_are_refused(successes: int, n: int) -> None:
    with pytest.raises(BadInput, match="wanted at least one trial"):
        wilson(float(successes), n)


def test_one_plain_item_for_each_prompt_gets_wilson() -> None:
    result = plain([1, 1, 0.5, 0, 1])
    assert result.value == 0.7
    assert (result.low, result.high) == wilson(3.5, 5)
    assert (result.n, result.unit, result.prompts) == (5, "pairs", 5)


def test_nothing_measured_gives_no_value() -> None:
    result = plain([])
    assert result == Estimate(None, None, None, 0, "pairs", 0)
    assert str(result) == "-"


def test_a_value_that_is_not_a_number_leaves_no_value_but_its_n() -> None:
    assert plain([1, math.nan, 0]) == Estimate(None, None, None, 3, "pairs", 3)
    assert plain([1, math.inf, 0]).value is None


def test_one_prompt_gives_a_mean_but_no_interval() -> None:
    result = estimate(np.array([1.5, 2.5]), np.ones(2), np.zeros(2, np.int64), n=2, unit="pairs", bootstrap=FAST)
    assert (result.value, result.low, result.high, result.prompts) == (2.0, None, None, 1)
    assert str(result) == "2.000"


def test_all_right_is_not_certain_and_repeating_a_prompt_adds_nothing() -> None:
    four = plain([1, 1, 1, 1])
    repeated = estimate(np.full(8, 1.0), np.ones(8), np.arange(8) // 2, n=8, unit="pairs", bounds=SHARE, bootstrap=FAST)
    assert (four.low, four.high) == wilson(4.0, 4)
    assert (repeated.low, repeated.high) == pytest.approx((four.low, four.high))
    assert (repeated.n, repeated.prompts) == (8, 4)


def test_bounds_other_than_0_and_1_are_mapped_back() -> None:
    tau = estimate(
        np.full(6, -1.0), np.ones(6), np.arange(6), n=6, unit="comparisons", bounds=(-1.0, 1.0), bootstrap=FAST
    )
    assert tau.value == tau.low == -1.0
    assert tau.high == pytest.approx(2 * wilson(0.0, 6)[1] - 1)


def test_the_value_is_the_ratio_of_sums() -> None:
    result = estimate(
        np.array([1.0, 6.0]), np.array([1.0, 9.0]), np.array([0, 1]), n=10, unit="pairs", bounds=SHARE, bootstrap=FAST
    )
    assert result.value == 0.7


def test_bca_is_scipys_where_every_prompt_has_one_item() -> None:
    values = np.random.default_rng(3).lognormal(size=60)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    ours = cluster_bootstrap(values, np.ones(60), Bootstrap(resamples=20_000))
    assert ours == pytest.approx(tuple(reference.confidence_interval), rel=0.02)


def test_bca_is_scipys_for_a_ratio_of_sums() -> None:
    random = np.random.default_rng(5)
    counts = random.integers(1, 9, 50).astype(float)
    totals = random.binomial(counts.astype(int), random.beta(2, 1, 50)).astype(float)
    reference = stats.bootstrap(
        (totals, counts), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), paired=True,
        n_resamples=20_000, method="BCa", rng=np.random.default_rng(0),
    )  # fmt: skip
    assert cluster_bootstrap(totals, counts, Bootstrap(resamples=20_000)) == pytest.approx(
        tuple(reference.confidence_interval), abs=0.006
    )


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    totals, counts = np.random.default_rng(0).normal(size=30), np.ones(30)
    assert cluster_bootstrap(totals, counts, Bootstrap()) == cluster_bootstrap(totals, counts, Bootstrap())
    assert cluster_bootstrap(totals, counts, Bootstrap()) != cluster_bootstrap(totals, counts, Bootstrap(seed=1))


def test_resampling_in_several_parts_is_still_a_resampling() -> None:
    totals = np.random.default_rng(0).normal(3.0, 1.0, 2500)  # 200 resamples fit in a part
    low, high = cluster_bootstrap(totals, np.ones(2500), Bootstrap(resamples=900))
    half = 1.96 * totals.std() / 50
    assert (low, high) == pytest.approx((totals.mean() - half, totals.mean() + half), abs=0.006)


def coverage(interval_of_pairs: bool) -> float:
    """How often the interval holds the truth: 40 prompts of 6 pairs, which share the prompt's difficulty."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        right = random.binomial(6, random.beta(1.4, 0.6, 40)).astype(float)
        found = estimate(right, np.full(40, 6.0), np.arange(40), n=240, unit="pairs", bounds=SHARE, bootstrap=FAST)
        low, high = wilson(right.sum(), 240) if interval_of_pairs else (found.low, found.high)
        held += low <= 0.7 <= high
    return held / 300


def test_the_interval_over_prompts_holds_the_truth_as_often_as_it_says() -> None:
    assert 0.91 <= coverage(interval_of_pairs=False) <= 0.98


def test_counting_pairs_as_independent_would_be_overconfident() -> None:
    assert coverage(interval_of_pairs=True) < 0.85


@pytest.mark.parametrize("settings", [{"resamples": 0}, {"confidence": 1.0}])
def test_an_impossible_bootstrap_is_refused(settings: dict) -> None:
    with pytest.raises(BadInput, match="the bootstrap has"):
        Bootstrap(**settings)
