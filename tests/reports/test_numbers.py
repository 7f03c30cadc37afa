"""Numbers and estimates as text."""

from dataclasses import replace

import pytest

from prefrank.reports.numbers import (
    count,
    digits,
    from_to,
    in_words,
    interval,
    p_value,
    percent,
    points,
    stated,
    stated_estimate,
    three_places,
)
from prefrank.stats.estimates import Estimate

ESTIMATE = Estimate(0.5, 0.25, 0.75, 4000, "pairs", 3)


def test_digits_have_a_true_minus_and_no_negative_zero() -> None:
    assert [digits(value) for value in (None, -0.0001, -1.5, 0.25)] == ["-", "0.000", "−1.500", "0.250"]
    assert digits(-0.0001, 5) == "−0.00010"


def test_an_interval_says_why_there_is_none() -> None:
    alone = replace(ESTIMATE, low=None, high=None)
    assert interval(alone) == "no interval"
    assert interval(replace(alone, value=None)) == "not defined"
    assert interval(replace(alone, value=None, n=0)) == "nothing to measure"


def test_an_estimate_for_a_page_stands_on_one_line() -> None:
    assert in_words(ESTIMATE) == "0.500 [0.250,\u00a00.750], 4,000\u00a0pairs"
    assert count(replace(ESTIMATE, n=1)) == "1\u00a0pair"


def test_an_estimate_for_a_card_says_what_is_missing() -> None:
    assert stated_estimate(ESTIMATE) == "0.500 [0.250, 0.750] (4,000 pairs)"
    assert stated_estimate(replace(ESTIMATE, value=None, low=None, high=None, n=0)) == "no value (0 pairs)"
    assert [stated(value) for value in (99.9, -0.5, 1234.56)] == ["99.900", "-0.500", "1,234.6"]


@pytest.mark.parametrize(("p", "shown"), [(None, "-"), (0.00099, "< 0.001"), (0.001, "0.001"), (1.0, "1.000")])
def test_p_values_have_three_places(p: float | None, shown: str) -> None:
    assert p_value(p) == shown


def test_tables_show_shares_in_per_cent_and_differences_in_points() -> None:
    assert from_to(ESTIMATE, percent) == "25.0 to 75.0 %".removesuffix(" %")
    assert from_to(ESTIMATE, three_places) == "0.250 to 0.750"
    assert from_to(replace(ESTIMATE, low=None, high=None), percent) == "-"
    assert [points(value) for value in (0.012, -0.5, None)] == ["+1.2", "-50.0", "-"]
    assert [percent(value) for value in (0.5, None)] == ["50.0 %", "-"]
