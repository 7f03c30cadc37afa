"""The shipped starter comparisons: complete, varied, and with no answer in the length."""

import json
from collections import Counter
from importlib.resources import files
from itertools import combinations

import pytest

from prefrank.data import load_splits
from prefrank.data.describe import longer_wins

ROWS = [
    json.loads(line) for line in (files("prefrank.data") / "starter" / "comparisons.jsonl").read_text().splitlines()
]
CATEGORIES = {"advice", "facts", "safety", "writing", "code", "arithmetic", "summaries", "multiturn"}


def longer_is_better(rows: list[dict]) -> float:
    wins = []
    for row in rows:
        for (first, a), (second, b) in combinations(zip(row["ranks"], row["replies"], strict=True), 2):
            if first != second:
                better, worse = (a, b) if first < second else (b, a)
                wins.append(0.5 if len(a) == len(b) else float(len(better) > len(worse)))
    return sum(wins) / len(wins)


def test_there_are_at_least_240_prompts_with_four_ranked_replies() -> None:
    assert len(ROWS) >= 240
    assert all(len(set(row["replies"])) == len(row["ranks"]) == 4 for row in ROWS)
    assert len({row["id"] for row in ROWS}) == len({json.dumps(row["prompt"]) for row in ROWS}) == len(ROWS)


def test_every_category_is_there_and_some_replies_are_tied() -> None:
    counts = Counter(row["category"] for row in ROWS)
    assert set(counts) == CATEGORIES
    assert min(counts.values()) >= 25
    assert sum(len(set(row["ranks"])) < 4 for row in ROWS) >= 60


def test_length_does_not_give_the_answer_away() -> None:
    assert 0.45 < longer_is_better(ROWS) < 0.55


@pytest.mark.parametrize("split", ["train", "validation"])
def test_length_does_not_give_the_answer_away_in_either_split(split: str) -> None:
    share = load_splits("starter")[split]
    assert 0.45 < longer_wins(share.comparisons).value < 0.55


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_length_does_not_give_the_answer_away_inside_a_category(category: str) -> None:
    assert 0.44 < longer_is_better([row for row in ROWS if row["category"] == category]) < 0.56


def test_the_place_of_a_reply_does_not_give_the_answer_away() -> None:
    firsts = Counter(place for row in ROWS for place in range(4) if row["ranks"][place] == 0)
    assert max(firsts.values()) < 1.25 * min(firsts.values())


def test_the_demos_own_example_is_not_in_the_training_data() -> None:
    assert not any("out of prison" in json.dumps(row["prompt"]).lower() for row in ROWS)
