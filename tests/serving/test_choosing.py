"""Which rows make a batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefrank.serving.choosing import choose
from prefrank.types import Causal, Row

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def row(ids: list[int]) -> Row:
    return Row(np.array(ids, np.int64), np.zeros(len(ids), np.int8), 0, 0, 0)


def of_length(length: int) -> Row:
    return row(list(range(length)))


@given(LENGTHS, st.integers(1, 100), st.integers(1, 4))
def test_the_oldest_row_is_always_in_and_no_row_twice(lengths: list[int], max_tokens: int, streams: int) -> None:
    chosen = choose([of_length(n) for n in lengths], None, by_length=True, max_tokens=max_tokens, streams=streams)
    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(len(lengths)))


@given(LENGTHS, st.integers(1, 100), st.integers(1, 4))
def test_a_batch_is_within_its_tokens_unless_one_row_alone_is_longer(
    lengths: list[int], max_tokens: int, streams: int
) -> None:
    chosen = choose([of_length(n) for n in lengths], None, by_length=True, max_tokens=max_tokens, streams=streams)
    assert len(chosen) == 1 or sum(lengths[place] for place in chosen) <= max_tokens


def test_rows_of_about_the_length_of_the_oldest_come_first() -> None:
    rows = [of_length(n) for n in (10, 50, 11, 40, 9, 12)]
    assert choose(rows, None, by_length=True, max_tokens=42, streams=1) == [0, 2, 4, 5]


def test_rows_go_by_age_where_their_lengths_cost_nothing() -> None:
    rows = [of_length(n) for n in (10, 20, 11, 40, 9, 12)]
    assert choose(rows, None, by_length=False, max_tokens=42, streams=1) == [0, 1, 2]


def test_few_rows_are_shared_among_the_streams() -> None:
    rows = [of_length(10) for _ in range(4)]
    assert choose(rows, None, by_length=True, max_tokens=1000, streams=2) == [0, 1]
    assert choose(rows, None, by_length=True, max_tokens=1000, streams=1) == [0, 1, 2, 3]


def test_rows_that_begin_alike_come_first_and_count_their_beginning_once() -> None:
    prompt = list(range(100, 120))
    rows = [row([*prompt, 1]), row(list(range(21))), row([*prompt, 2]), row([*prompt, 3, 4])]
    assert choose(rows, Causal(), by_length=False, max_tokens=24, streams=1) == [0, 2, 3]


def test_replies_to_one_prompt_are_not_torn_apart_for_a_fair_share() -> None:
    prompt = list(range(100, 120))
    rows = [row([*prompt, n]) for n in range(8)]
    assert choose(rows, Causal(), by_length=False, max_tokens=1000, streams=4) == list(range(8))
