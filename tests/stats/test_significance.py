"""Paired tests, adjustments for many of them, and letters, held against statsmodels and by simulation."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.figures import mean_figure, minus, sums_of
from prefrank.stats.significance import fair_coin_test, holm, letters, swap_tests


def test_the_swap_test_is_right_five_times_in_a_hundred_on_clustered_pairs() -> None:
    random, prompts, result = np.random.default_rng(0), np.repeat(np.arange(30), 5), 0
    for _ in range(300):
        lean = np.repeat(random.normal(0, 0.5, 30), 5)  # a prompt that suits one scorer suits it in all five pairs
        first, second = random.normal(lean) > 0, random.normal(-lean) > 0
        gap = sums_of(minus(mean_figure(first.astype(float), prompts), mean_figure(second.astype(float), prompts)))
        result += swap_tests({"": gap}, Bootstrap(resamples=99))[""] <= 0.05
    assert 0.01 <= result / 300 <= 0.10


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    random, result = np.random.default_rng(0), 0
    for _ in range(300):
        gap = random.normal(0, 1, 60) + 2.8 / math.sqrt(60)
        sums = sums_of(mean_figure(gap, np.arange(60), bounds=None))
        result += swap_tests({"": sums}, Bootstrap(resamples=199))[""] <= 0.05
    assert 0.7 <= result / 300 <= 0.88


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_holms_adjustment_is_statsmodels(size: int) -> None:
    p_values = (np.random.default_rng(size).random(size) ** 3).round(2).tolist()
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_nothing_to_adjust_is_nothing() -> None:
    assert holm([]) == []


def test_letters_by_hand() -> None:
    assert letters(["x", "y", "z"], {("x", "z")}) == {"x": "a", "y": "ab", "z": "b"}
    assert letters(["x", "y"], set()) == {"x": "a", "y": "a"}
    assert letters(["x", "y", "z"], {("x", "y"), ("x", "z"), ("y", "z")}) == {"x": "a", "y": "b", "z": "c"}
    assert letters([], set()) == {}


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.sets(st.sampled_from(list(combinations("pqrstu", 2)))))
def test_two_names_share_a_letter_unless_they_are_apart(apart: set[tuple[str, str]]) -> None:
    result = letters("pqrstu", apart)
    assert "a" in result["p"]
    for pair in combinations("pqrstu", 2):
        assert bool(set(result[pair[0]]) & set(result[pair[1]])) == (pair not in apart)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 9), (7, 7), (150, 110), (60_000, 60_400)])
def test_the_fair_coin_test_is_scipys_binomial_test(b: int, c: int) -> None:
    exact, mid_p = fair_coin_test(b, c)
    binomial = stats.binom(b + c, 0.5)
    wanted = float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0
    assert exact == pytest.approx(wanted, rel=1e-7)
    if b + c:
        assert mid_p == pytest.approx(min(1.0, 2 * binomial.cdf(min(b, c)) - binomial.pmf(min(b, c))), rel=1e-7)
