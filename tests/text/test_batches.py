import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.errors import BadInput
from prefrank.text import plan_batches
from prefrank.types import Row, reply_types


def rows(lengths: list[int]) -> list[Row]:
    return [
        Row(np.full(length, n, np.int64), reply_types(length, length // 2), length // 2, 0, 0)
        for n, length in enumerate(lengths)
    ]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=40), budget=st.integers(1, 200))
def test_every_row_is_planned_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(rows(lengths), max_tokens=budget)
    assert sorted(n for batch in batches for n in batch.rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch.ids) <= budget or len(batch.rows) == 1
        for place, n in enumerate(batch.rows.tolist()):
            assert batch.ids[batch.starts[place] : batch.starts[place + 1]].tolist() == [n] * lengths[n]
            assert batch.types[batch.starts[place] : batch.starts[place + 1]].sum() == lengths[n] - lengths[n] // 2


def test_rows_of_like_length_stand_together() -> None:
    batches = plan_batches(rows([5, 50, 6, 49]), max_tokens=100)
    assert [batch.rows.tolist() for batch in batches] == [[0, 2, 3], [1]]


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="max_tokens is 0"):
        plan_batches(rows([3]), max_tokens=0)
