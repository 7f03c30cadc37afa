"""Checks of what callers give."""

from fractions import Fraction

import numpy as np
import pytest

from prefrank.checks import check_number, check_whole, is_count, is_finite
from prefrank.errors import BadInput


def test_counts_are_whole_numbers_from_1_and_no_bools() -> None:
    assert all(map(is_count, (1, 10**400, np.int64(3))))
    assert not any(map(is_count, (0, -1, True, 1.0, "1", None, np.float64(2))))


def test_finite_numbers_fit_a_float_and_are_no_bools() -> None:
    assert all(map(is_finite, (0, -1.5, np.float32(2), Fraction(1, 3))))
    assert not any(map(is_finite, (float("nan"), float("inf"), 10**400, False, "1", None, 1j)))


@pytest.mark.parametrize("value", [10**400, True, "1", None, float("nan"), 0, 1, 1.5])
def test_a_number_out_of_bounds_is_named(value: object) -> None:
    with pytest.raises(BadInput, match=r"x is .*; wanted a finite number above 0 and below 1"):
        check_number("x", value, above=0.0, below=1.0)


@pytest.mark.parametrize(("value", "wanted"), [(0, "at least 1"), (9, "1 to 8"), (True, "1 to 8"), (2.0, "1 to 8")])
def test_a_whole_number_out_of_bounds_is_named(value: object, wanted: str) -> None:
    with pytest.raises(BadInput, match=f"x is {value}; wanted {wanted}, a whole number"):
        check_whole("x", value, least=1, most=8)
