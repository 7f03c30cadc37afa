"""Intervals in closed form, held against scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from prefrank.errors import BadInput
from prefrank.stats.intervals import (
    Z_95,
    clustered_error,
    mean_interval,
    normal_interval,
    wilson,
    wilson_of_share,
    z_value,
)


def test_wilson_of_eight_in_ten_by_hand() -> None:
    # z = 1.96: centre (0.8 + 0.19207) / 1.38415, half width 1.96 / 1.38415 * sqrt(0.016 + 0.0096036)
    assert wilson(8.0, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_wilson_is_newcombes() -> None:
    assert wilson(81.0, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I, method 3


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (52, 100), (700, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys_and_statsmodels(successes: int, n: int, confidence: float) -> None:
    ours = wilson(float(successes), n, confidence=confidence)
    assert ours == pytest.approx(proportion_confint(successes, n, 1 - confidence, method="wilson"), abs=1e-12)
    reference = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx(tuple(reference), abs=1e-12)


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


def test_wilson_of_a_share_is_that_of_its_successes() -> None:
    assert wilson_of_share(0.8, 10, z_value(0.95)) == wilson(8.0, 10)
    assert stats.norm.ppf(0.975) == Z_95 == pytest.approx(z_value(0.95), abs=1e-15)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert mean_interval(values, Z_95) == pytest.approx(stats.norm.interval(0.95, values.mean(), stats.sem(values)))
    assert mean_interval(values[:1], Z_95) is None


def test_units_alone_have_the_error_of_a_mean_and_copies_in_a_cluster_change_nothing() -> None:
    values = np.random.default_rng(0).normal(size=30)
    influence = (values - values.mean()) / 30
    error = clustered_error(influence, np.arange(30))
    assert error == pytest.approx(stats.sem(values))
    assert clustered_error(np.repeat(influence / 3, 3), np.repeat(np.arange(30), 3)) == pytest.approx(error)
    low, high = normal_interval(values.mean(), error, confidence=0.9)
    assert (low, high) == pytest.approx(stats.norm.interval(0.9, values.mean(), error))
