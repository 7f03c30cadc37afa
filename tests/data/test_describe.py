"""Descriptions: counts, lengths, the length-only scorer, and overlap between splits."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prefrank.data import Loaded, describe, load_comparisons, load_splits
from prefrank.data.describe import longer_wins
from prefrank.stats.intervals import wilson
from tests.data.files import own_row, write_lines


def load(path: Path, rows: list[dict[str, Any]]) -> Loaded:
    return load_comparisons(write_lines(path, rows))


def test_a_description_counts_what_was_loaded(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one two three", "replies": ["a b", "c"], "ranks": [0, 1]},
        {"prompt": "one two three", "replies": ["a b c d e", "c", "d d d"], "ranks": [0, 0, 1]},
        {"prompt": "one", "replies": ["same", "same"], "ranks": [0, 1]},
    ]
    loaded = load(tmp_path / "a.jsonl", rows)
    description = describe({"all": loaded})
    split = description.splits["all"]
    assert description.unit == "words"
    assert (split.rows, split.comparisons, split.distinct_prompts, split.replies) == (3, 2, 1, 5)
    assert (split.pairs, split.ties, split.num_replies) == (4, 1, {2: 1, 3: 1})
    assert (split.prompt_lengths.median, split.prompt_lengths.max) == (3.0, 3)
    assert (split.reply_lengths.median, split.reply_lengths.max) == (2.0, 5)
    assert split.dropped == {"equal replies": 1}


def test_lengths_are_in_tokens_where_a_counter_is_given(tmp_path: Path) -> None:
    description = describe({"all": load(tmp_path / "a.jsonl", [own_row(ranks=[0, 1, 2])])}, count_tokens=len)
    assert (description.unit, description.splits["all"].prompt_lengths.max) == ("tokens", len("Name a colour."))


def test_a_length_only_scorer_gets_half_for_equal_lengths_and_no_say_on_ties(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "replies": ["long one", "short"], "preferences": [[0, 1]]},
        {"prompt": "b", "replies": ["long one", "short"], "preferences": [[1, 0]]},
        {"prompt": "c", "replies": ["four", "also"], "preferences": [[0, 1]]},
        {"prompt": "d", "replies": ["long one", "short"], "preferences": [[1, 0, 0.1]]},
        {"prompt": "e", "replies": ["long one", "short"], "preferences": [[0, 1, 0.5]]},
    ]
    share = longer_wins(load(tmp_path / "a.jsonl", rows).comparisons)
    assert (share.value, share.n) == (2.5 / 4, 4)
    assert (share.low, share.high) == pytest.approx(wilson(2.5, 4))


def test_without_judgements_there_is_no_share() -> None:
    share = longer_wins([])
    assert share.n == 0
    assert all(math.isnan(value) for value in (share.value, share.low, share.high))


def test_overlap_is_found_word_for_word_and_but_for_case_and_signs(tmp_path: Path) -> None:
    train = [own_row(prompt=p, ranks=[0, 1, 2]) for p in ("Tea or coffee?", "Rain", "What is TeX")]
    test = [own_row(prompt=p, ranks=[0, 1, 2]) for p in ("Tea or coffee?", "what  is tex?", "Snow")]
    chat = [{"role": r, "content": c} for r, c in (("user", "Rain"), ("assistant", "Yes."), ("user", "And wind?"))]
    description = describe({
        "train": load(tmp_path / "train.jsonl", train),
        "test": load(tmp_path / "test.jsonl", [*test, own_row(prompt=chat, ranks=[0, 1, 2])]),
    })  # fmt: skip
    backward = next(o for o in description.overlaps if (o.split, o.other) == ("test", "train"))
    assert (backward.prompts, backward.exact, backward.normalised, backward.opening) == (4, 1, 2, 2)


def test_a_description_is_plain_json_without_nan(tmp_path: Path) -> None:
    loaded = load(tmp_path / "a.jsonl", [{"prompt": "a", "replies": ["b", "c"], "ranks": [0, 0]}])
    written = json.dumps(describe({"all": loaded}).to_json(), allow_nan=False)
    assert json.loads(written)["splits"]["all"]["longer_wins"] == {"value": None, "n": 0, "low": None, "high": None}


def test_an_empty_split_is_described_too() -> None:
    loaded = load_comparisons("starter")
    description = describe({"all": Loaded((), loaded.report)})
    assert description.splits["all"].comparisons == 0


def test_prompts_that_a_split_by_prompt_keeps_apart_do_not_overlap() -> None:
    description = describe(load_splits("starter"))
    assert [(o.exact, o.opening) for o in description.overlaps] == [(0, 0), (0, 0)]
