"""Correlations and ratios as figures, held against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.correlation import pearson, rank_correlation, rank_correlations, spearman
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import ratio


def test_rank_correlations_are_scipys() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        x, y = draw.integers(0, 5, 12).astype(float), draw.normal(size=12)
        wanted = [stats.kendalltau(x, y).statistic, stats.spearmanr(x, y).statistic]
        assert rank_correlations(x, y) == pytest.approx(wanted)
        assert rank_correlation(x, y) == pytest.approx(wanted[1])
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)


@pytest.mark.parametrize("values", [[], [0.1, 0.1, 0.1]])
def test_what_does_not_vary_correlates_with_nothing(values: list[float]) -> None:
    x, y = np.array(values), np.arange(float(len(values)))
    assert pearson(x, y) is rank_correlation(y, x) is None
    assert rank_correlations(x, y) == (0.0, 0.0)


def test_spearman_over_items_is_scipys_and_moves_as_items_are_left_out() -> None:
    draw, size = np.random.default_rng(2), 300
    x = draw.integers(0, 8, size).astype(float)
    y = x + 2 * draw.normal(size=size)
    result = spearman(x, y, np.arange(size)).parts[0].values
    whole = stats.spearmanr(x, y).statistic
    assert result.mean() == pytest.approx(whole)
    kept = [np.arange(size) != i for i in range(size)]
    jackknife = [size * whole - (size - 1) * stats.spearmanr(x[k], y[k]).statistic for k in kept]
    assert result == pytest.approx(np.array(jackknife), abs=0.05)


def test_a_correlation_of_nothing_or_of_failures_has_no_value() -> None:
    x, nothing = np.array([1.0, 1.0]), np.zeros(0)
    figures = {
        "equal": spearman(x, np.array([1.0, 2.0]), np.arange(2)),
        "failed": spearman(np.array([1.0, math.nan]), np.array([1.0, 2.0]), np.arange(2)),
        "empty": spearman(nothing, nothing, np.zeros(0, np.int64)),
        "ratio": ratio(nothing, nothing, np.zeros(0, np.int64)),
        "by zero": ratio(x, np.array([1.0, -1.0]), np.arange(2)),
    }
    assert {figure.value for figure in estimate_all(figures, Bootstrap(resamples=1)).values()} == {None}


def test_a_ratio_of_things_that_go_together_has_no_spread() -> None:
    bottom = np.array([1.0, 5.0, 2.0])
    result = estimate_all({"ratio": ratio(2 * bottom, bottom, np.arange(3))}, Bootstrap(resamples=100))["ratio"]
    assert [result.low, result.value, result.high] == pytest.approx([2, 2, 2])
