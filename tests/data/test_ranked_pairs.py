"""A long ranked list: all that is said of its pairs is what is said of the pairs one by one."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.data import candidates, describe, load_comparisons
from prefrank.data.candidates import carry_over, from_ranks, from_ratings_of, preferences_of
from prefrank.data.load import load_splits
from prefrank.errors import BadInput
from prefrank.types import Comparison, RankedPairs, Ratings
from tests.data.files import user, write_lines


def listed(ranks: list[int | None]) -> RankedPairs:
    return RankedPairs(tuple(ranks))


@given(st.lists(st.integers(0, 5) | st.none(), max_size=12))
def test_the_pairs_of_a_ranking_are_those_made_at_once(ranks: list[int | None]) -> None:
    rated = Ratings(tuple(None if rank is None else -float(rank) for rank in ranks))
    pairs, made = listed(ranks), from_ratings_of(rated)
    assert isinstance(made, tuple)
    assert tuple(pairs) == made
    assert len(pairs) == len(made)
    assert pairs.ties == sum(pair.tie for pair in made)
    assert pairs == made
    assert [pairs[place] for place in range(-len(made), len(made))] == [*made, *made]
    assert (pairs[1:7:2], pairs[::-1]) == (made[1:7:2], made[::-1])
    assert pickle.loads(pickle.dumps(pairs)) == pairs
    assert hash(listed([rank and rank * 2 for rank in ranks])) == hash(pairs)


@given(st.lists(st.integers(0, 5), min_size=3, max_size=9, unique=True))
def test_replies_that_are_left_out_leave_the_others_pairs(ranks: list[int]) -> None:
    texts = [f"reply {rank}" for rank in ranks]
    few = carry_over(listed([*ranks]), ["", *texts[1:]], texts[1:])
    assert isinstance(few, RankedPairs)
    assert few == carry_over(from_ranks(ranks), ["", *texts[1:]], texts[1:])


def rows(count: int) -> list[dict[str, Any]]:
    replies = [f"reply {number} " + "x" * (number % 7) for number in range(count)]
    ranks = [number * 7 % 11 for number in range(count)]
    return [{"prompt": "p", "replies": replies, "ranks": ranks}, {"prompt": "q", "replies": replies, "ratings": ranks}]


def test_a_description_and_a_report_say_the_same_of_long_lists_and_of_their_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [*rows(70), *rows(70)])
    kept = load_splits(path)
    assert all(isinstance(comparison.preferences, RankedPairs) for comparison in kept["all"].comparisons)
    monkeypatch.setattr(candidates, "_LONG", 1000)
    made = load_splits(path)
    assert all(isinstance(comparison.preferences, tuple) for comparison in made["all"].comparisons)
    assert kept == made
    assert kept["all"].report.duplicates == 2
    assert describe(kept) == describe(made)


def test_a_long_list_is_read_without_its_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RankedPairs, "__iter__", lambda pairs: pytest.fail("all pairs were made"))
    path = write_lines(tmp_path / "mine.jsonl", rows(600))
    for group in (False, True):
        loaded = load_comparisons(path, group=group)
        assert loaded.report.pairs == 600 * 599
    assert describe(load_splits(path)).splits["all"].longer_wins.n == loaded.report.pairs - loaded.report.ties


def test_more_pairs_than_the_bound_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_PAIRS", "10")
    assert len(list(listed([0, 1, 2, 3, 4]))) == 10
    with pytest.raises(BadInput, match=r"6 ranked replies have more than 10 pairs, which PREFRANK_MAX_PAIRS may raise"):
        list(listed([0, 1, 2, 3, 4, 5]))


def test_a_comparison_has_a_rank_for_each_reply_and_its_heads_are_told_apart() -> None:
    one = Comparison(user("p"), ("a", "b", "c"), listed([0, 1, 1]), "s", "i")
    with pytest.raises(BadInput, match="comparison i has 2 ranks for 3 replies"):
        replace(one, preferences=listed([0, 1]))
    assert preferences_of(one, ["overall"]) is one.preferences
    assert preferences_of(one, ["other"]) == ()
