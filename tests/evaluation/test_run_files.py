"""The made-up runs that tests of reports are made of."""

import math

import pytest

from tests.evaluation.run_files import fake_run


def test_a_made_up_run_agrees_with_itself() -> None:
    run = fake_run(items=120)
    result = run["scorers"][0]["results"]["helpful"]
    assert result["overall"]["accuracy"]["value"] == pytest.approx(result["figures"]["Accuracy"]["value"])
    wins = [first > second if None not in (first, second) else False for first, second in result["scores"]]
    ties = sum(first is not None and first == second for first, second in result["scores"])
    assert result["overall"]["accuracy"]["value"] == pytest.approx((sum(wins) + ties / 2) / len(wins))
    assert math.isclose(result["abstention"][0]["accuracy"], result["overall"]["accuracy"]["value"])
