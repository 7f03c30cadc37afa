"""Rows that begin alike share segments: every row is whole, nothing is there twice that need not be, budgets hold."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.model.segments import segments_of
from prefrank.text import count_tokens, plan_batches
from prefrank.text.sharing import KEYS_PER_TOKEN, LEAST_SHARED
from prefrank.types import Batch, Causal, Row


def row(ids: list[int]) -> Row:
    return Row(np.array(ids, np.int64), np.zeros(len(ids), np.int8), 0, 0, 0)


@st.composite
def families(draw: st.DrawFn) -> list[Row]:
    """Rows that grow out of parts of each other, copies and beginnings included."""
    rows: list[list[int]] = []
    for _ in range(draw(st.integers(1, 12))):
        before = draw(st.sampled_from(rows)) if rows and draw(st.booleans()) else []
        kept = before[: draw(st.integers(0, len(before)))]
        own = draw(st.lists(st.integers(0, 3), min_size=0 if kept else 1, max_size=30))
        rows.append(kept + own)
    return [row(ids) for ids in rows]


CAUSAL = st.builds(
    Causal, padding=st.none() | st.integers(0, 1), fixed_until=st.none() | st.integers(1, 30), by_length=st.booleans()
)


def ids_of(batch: Batch, n: int, causal: Causal) -> np.ndarray:
    """Row n of a batch, put together again."""
    segments = segments_of(batch, causal)
    assert batch.tree is not None
    places = np.concatenate([np.arange(batch.starts[s], batch.starts[s + 1]) for s in batch.tree.path(n)])
    assert places[-1] == segments.ends[n]
    assert segments.positions[places].tolist() == list(range(len(places)))
    return batch.ids[places]


@settings(deadline=None)
@given(families(), CAUSAL, st.sampled_from([1, 10, 40, 100, 1000]))
def test_every_row_is_in_one_batch_up_to_its_scored_token(rows: list[Row], causal: Causal, budget: int) -> None:
    seen = []
    for batch in plan_batches(rows, max_tokens=budget, causal=causal):
        keys = sum(len(ids_of(batch, n, causal)) for n in range(len(batch.rows)))
        assert (len(batch.ids) <= budget and keys <= KEYS_PER_TOKEN * budget) or len(batch.rows) == 1
        for n, place in enumerate(batch.rows.tolist()):
            ids = rows[place].ids
            np.testing.assert_array_equal(ids_of(batch, n, causal), ids[: causal.scored_length(ids)])
            seen.append(place)
    assert sorted(seen) == list(range(len(rows)))


@settings(deadline=None)
@given(families(), CAUSAL)
def test_segments_stand_in_rows_of_one_table(rows: list[Row], causal: Causal) -> None:
    (batch,) = plan_batches(rows, max_tokens=10_000, causal=causal)
    segments = segments_of(batch, causal)
    assert batch.tree is not None
    for n, place in enumerate(batch.rows.tolist()):
        table = causal.table(len(rows[place].ids))
        assert {causal.table(int(segments.lengths[s])) for s in batch.tree.path(n)} == {table}


@settings(deadline=None)
@given(families())
def test_no_two_children_of_a_segment_begin_alike_for_long(rows: list[Row]) -> None:
    (batch,) = plan_batches(rows, max_tokens=10_000, causal=Causal())
    assert batch.tree is not None
    parts = [batch.ids[a:b].tolist() for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)]
    beginnings = [
        (int(parent), tuple(part[:LEAST_SHARED]))
        for parent, part in zip(batch.tree.parents, parts, strict=True)
        if len(part) >= LEAST_SHARED
    ]
    assert len(set(beginnings)) == len(beginnings)


def test_a_prompt_with_four_replies_is_there_once() -> None:
    prompt = list(range(100, 200))
    rows = [row([*prompt, *range(start, start + 20)]) for start in (0, 20, 40, 60)]
    (batch,) = plan_batches(rows, max_tokens=1000, causal=Causal())
    assert len(batch.ids) == 100 + 4 * 20
    assert batch.tree is not None
    assert batch.tree.parents.tolist() == [-1, 0, 0, 0, 0]
    assert batch.tree.leaves.tolist() == [1, 2, 3, 4]


def test_a_full_batch_ends_between_two_prompts() -> None:
    first, second = list(range(100, 140)), list(range(200, 240))
    rows = [row([*prompt, n, *[n] * 9]) for prompt in (first, second) for n in range(3)]
    batches = plan_batches(rows, max_tokens=2 * 70 - 1, causal=Causal())
    assert [len(batch.ids) for batch in batches] == [70, 70]


def test_a_prompt_with_very_many_replies_is_in_several_batches_for_the_keys_that_they_read() -> None:
    """Though their distinct tokens are few."""
    prompt = list(range(100, 200))
    rows = [row([*prompt, n]) for n in range(100)]
    batches = plan_batches(rows, max_tokens=200, causal=Causal())
    most = KEYS_PER_TOKEN * 200 // 101
    assert [len(batch.rows) for batch in batches] == [most] * (100 // most) + [100 % most]
    assert all(len(batch.ids) == 100 + len(batch.rows) for batch in batches)


def test_a_row_that_begins_another_ends_inside_it() -> None:
    (batch,) = plan_batches([row(list(range(30))), row(list(range(12)))], max_tokens=100, causal=Causal())
    assert batch.ids.tolist() == list(range(30))
    assert batch.starts.tolist() == [0, 12, 30]
    assert segments_of(batch, Causal()).ends[np.argsort(batch.rows)].tolist() == [29, 11]


def test_tokens_are_counted_once_where_rows_share_them() -> None:
    prompt = list(range(10, 30))
    rows = [row([*prompt, 1, 2]), row([*prompt, 3]), row([*prompt, 1, 2, 5]), row([9, 9])]
    assert count_tokens(rows, None) == 22 + 21 + 23 + 2
    assert count_tokens(rows, Causal()) == 20 + 2 + 1 + 1 + 2
    assert count_tokens(rows, Causal(padding=5)) == 20 + 2 + 1 + 2
    assert count_tokens([], Causal()) == 0
