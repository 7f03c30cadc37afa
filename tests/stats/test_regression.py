"""Logistic regression, held against statsmodels and scipy."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize_scalar

from prefrank.stats.intervals import clustered_error
from prefrank.stats.regression import (
    best_slope,
    coefficient_influences,
    logistic_regression,
    sigmoid,
    sigmoid_of,
    summed_loss,
)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(200, 3))
    return x, (random.random(200) < sigmoid(x @ np.array([1.0, -0.5, 0.0]))).astype(float), np.ones(200)


def test_coefficients_and_their_clustered_errors_are_statsmodels() -> None:
    x, label, weight = drawn(0)
    clusters = np.arange(200) % 50
    coefficients = logistic_regression(x, label, weight)
    wanted = sm.Logit(label, x).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    )  # fmt: skip
    assert coefficients == pytest.approx(wanted.params)
    influences = coefficient_influences(x, label, weight, coefficients)
    errors = [clustered_error(column, clusters) for column in influences.T]
    assert errors == pytest.approx((wanted.bse * math.sqrt(50 / 49)).tolist(), rel=1e-6)


def test_separated_labels_have_no_coefficients() -> None:
    x, _, weight = drawn(1)
    assert logistic_regression(x, (x[:, 0] > 0).astype(float), weight) is None


def test_the_best_slope_is_scipys() -> None:
    x, label, weight = drawn(2)
    wanted = minimize_scalar(lambda b: summed_loss(b * x[:, 0], label, weight), bounds=(0, 10), method="bounded").x
    assert best_slope(x[:, 0], label, weight, most=1e9) == pytest.approx(wanted, rel=1e-5)


def test_a_slope_that_only_helps_is_infinite_and_one_that_never_does_is_0() -> None:
    x, weight = np.array([1.0, -2.0, 3.0]), np.ones(3)
    assert best_slope(x, (x > 0).astype(float), weight, most=1e9) == math.inf
    assert best_slope(x, (x < 0).astype(float), weight, most=1e9) == 0.0


def test_the_sigmoid_of_one_number_is_that_of_an_array() -> None:
    x = np.array([-800.0, -1.0, 0.0, 3.0, 800.0])
    assert [sigmoid_of(value) for value in x.tolist()] == pytest.approx(sigmoid(x).tolist())
