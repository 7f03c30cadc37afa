"""Bounds have a value each, which the environment changes."""

import pytest

from prefrank.errors import BadInput
from prefrank.limits import LIMITS, limit, past


def test_every_bound_can_be_changed_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in LIMITS.items():
        assert limit(name) == bound.most
        monkeypatch.setenv(f"PREFRANK_MAX_{name.upper()}", "1e3")
        assert limit(name) == 1000
        assert past(name) == f"more than 1,000 {bound.unit}, which PREFRANK_MAX_{name.upper()} may raise"


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "nan", "inf"])
def test_a_bound_that_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", value)
    with pytest.raises(BadInput, match=r"PREFRANK_MAX_LINE_BYTES is .*; wanted a number of bytes, at least 1"):
        limit("line_bytes")
