"""Loading: every row is accounted for, splits go by prompt, repeats are dropped, nothing is invented."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.data import load_comparisons, load_splits, merge_reports, published_validation_rows, split_of
from prefrank.errors import BadData, BadInput
from prefrank.types import Turn
from tests.data.files import hh_row, message, own_row, stated, user, webgpt_row, write_lines, write_parquet

WORDS = st.sampled_from(["", " ", "yes", "no", "perhaps", "yes "])
RANKED = st.lists(st.tuples(WORDS, st.integers(0, 2)), min_size=1, max_size=4).map(
    lambda pairs: {"replies": [word for word, _ in pairs], "ranks": [rank for _, rank in pairs]}
)
PAIRED = st.fixed_dictionaries({"chosen": WORDS, "rejected": WORDS})
ROW = st.tuples(st.sampled_from(["Tea?", "Coffee?", " "]), RANKED | PAIRED).map(
    lambda row: {"prompt": row[0], **row[1]}
)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(ROW, min_size=1, max_size=12),
    split=st.sampled_from([None, "train", "validation"]),
    protocol=st.sampled_from(["by_prompt", "as_published"]),
    group=st.booleans(),
)
def test_every_row_is_kept_or_dropped_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], split: Any, protocol: Any, group: bool
) -> None:
    path = write_lines(tmp_path_factory.mktemp("rows") / "mine.jsonl", [own_row(ranks=[0, 1, 2]), *rows])
    loaded = load_comparisons(path, split=split, protocol=protocol, group=group)
    report = loaded.report
    assert report.rows == report.candidates == len(rows) + 1 == report.kept + sum(report.dropped.values())
    assert report.kept == len(loaded.comparisons)
    assert report.replies == sum(len(c.replies) for c in loaded.comparisons)
    assert report.pairs == sum(len(c.preferences) for c in loaded.comparisons)
    assert len({c.id for c in loaded.comparisons}) == report.kept
    for comparison in loaded.comparisons:
        assert all(reply == reply.strip() != "" for reply in comparison.replies)


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(ROW, min_size=1, max_size=12), protocol=st.sampled_from(["by_prompt", "as_published"]))
def test_the_two_splits_together_are_everything(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], protocol: Any
) -> None:
    path = write_lines(tmp_path_factory.mktemp("rows") / "mine.jsonl", [own_row(ranks=[0, 1, 2]), *rows])
    parts = [load_comparisons(path, split=split, protocol=protocol) for split in ("train", "validation")]
    whole = {str(sorted(stated(c))) for c in load_comparisons(path).comparisons}
    assert {str(sorted(stated(c))) for part in parts for c in part.comparisons} == whole
    if protocol == "by_prompt":
        assert sum(part.report.kept for part in parts) == load_comparisons(path).report.kept


def test_rows_of_one_prompt_never_fall_in_both_splits(tmp_path: Path) -> None:
    rows = [webgpt_row(f"A{i}", f"B{i}", 1.0, f"Question {i % 40}?") for i in range(200)]
    write_parquet(tmp_path / "default/train/0000.parquet", rows)
    parts = load_splits(tmp_path)
    train, validation = ({c.prompt for c in parts[name].comparisons} for name in ("train", "validation"))
    assert not train & validation
    assert 2 <= len(validation) <= 14
    assert parts["train"].report.kept + parts["validation"].report.kept == 200


def test_the_published_protocol_is_named_and_leaks(tmp_path: Path) -> None:
    rows = [webgpt_row(f"A{i}", f"B{i}", 1.0, f"Question {i % 40}?") for i in range(200)]
    write_parquet(tmp_path / "default/train/0000.parquet", rows)
    parts = load_splits(tmp_path, protocol="as_published")
    assert (parts["train"].report.kept, parts["validation"].report.kept) == (160, 40)
    train, validation = ({c.prompt for c in parts[name].comparisons} for name in ("train", "validation"))
    assert len(validation - train) < len(validation)


@pytest.mark.parametrize(("num_rows", "share"), [(19_578, 0.2), (33_143, 0.1), (7, 0.2), (1, 0.2)])
def test_the_published_rows_are_those_of_scikit_learn(num_rows: int, share: float) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    held_out = published_validation_rows(num_rows, share)
    if num_rows > 1:
        _, expected = model_selection.train_test_split(range(num_rows), test_size=share, random_state=666)
        assert held_out == set(expected)
    assert len(held_out) == -(-num_rows * round(share * 10) // 10)


def test_the_published_protocol_refuses_to_split_the_rows_of_a_tree(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "messages.jsonl", [message("p0", None, "Hi"), message("a0", "p0", "Hello", rank=0)])
    with pytest.raises(BadInput, match="these rows are parts of trees"):
        load_comparisons(path, split="train", protocol="as_published")


def test_the_place_of_a_prompt_never_changes() -> None:
    assert split_of(user("How do I bake bread?")) == split_of(user("  How do I bake bread?\n"))
    assert split_of(user("How do I bake bread?")) == pytest.approx(PLACE, abs=1e-12)
    assert split_of(user("How do I bake bread?"), seed=1) != split_of(user("How do I bake bread?"))


PLACE = 0.08805956753130717
"""int(sha256(b"0\\0How do I bake bread?").hexdigest()[:16], 16) >> 11, over 2**53."""


def test_only_the_opening_turn_places_a_conversation() -> None:
    later = (*user("Hi"), Turn("assistant", "Hello."), Turn("user", "A colour?"))
    assert split_of(later) == split_of(user("Hi")) == split_of((Turn("system", "Be brief."), *user("Hi")))


@settings(deadline=None)
@given(st.text())
def test_a_place_lies_in_the_unit_interval(text: str) -> None:
    assert 0.0 <= split_of(user(text)) < 1.0


def test_a_repeated_comparison_is_dropped_however_it_is_written(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "replies": ["a", "b", "c"], "ranks": [0, 1, 1], "id": "x"},
        {"prompt": "Hi", "replies": ["c", "a", "b"], "ranks": [5, 2, 5], "id": "x"},
        {"prompt": "Hi", "replies": ["a", "b", "c"], "ranks": [0, 1, 2], "id": "x"},
    ]
    loaded = load_comparisons(write_lines(tmp_path / "mine.jsonl", rows))
    assert loaded.report.duplicates == loaded.report.dropped["duplicate"] == 1
    assert [c.id for c in loaded.comparisons] == ["x", "x (mine.jsonl:3)"]


def votes(path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[tuple[str, str]], int, int]:
    """Who won against whom in each vote that was kept, and the counts of further votes and of copies."""
    loaded = load_comparisons(write_lines(path, rows), **options)
    won = [
        (comparison.replies[p.winner], comparison.replies[p.loser])
        for comparison in loaded.comparisons
        for p in comparison.preferences
    ]
    return won, loaded.report.votes, loaded.report.duplicates


def test_rows_with_ids_of_their_own_are_votes_and_those_without_are_copies(tmp_path: Path) -> None:
    sides = [("alpha", "beta")] * 4 + [("beta", "alpha")]
    rows = [{"prompt": "Hi", "chosen": chosen, "rejected": rejected} for chosen, rejected in sides]
    for name in ("id", "voter"):
        for value in (str, int):
            named = [{**row, name: value(number)} for number, row in enumerate(rows)]
            assert votes(tmp_path / "votes.jsonl", named) == (sides, 4, 0)
            assert votes(tmp_path / "votes.jsonl", named, group=True)[0] == sides
            assert votes(tmp_path / "votes.jsonl", [*named, *named]) == (sides, 4, 5)
    assert votes(tmp_path / "copies.jsonl", rows) == ([sides[0], sides[4]], 1, 3)


@pytest.mark.parametrize("write", [write_lines, write_parquet])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "replies": ["a", "b"], "ranks": [0, 1]},
        {"instruction": "Hi", "output": ["a", "b"]},
        {"prompt": "Hi", "response_1": "a", "response_2": "b", "preference_strength": -1},
        hh_row("Hi", "a", "b"),
        webgpt_row("a", "b", 1.0),
    ],
)
def test_an_id_tells_votes_from_copies_in_every_format(tmp_path: Path, row: dict[str, Any], write: Any) -> None:
    path = tmp_path / ("a.jsonl" if write is write_lines else "a.parquet")
    report = load_comparisons(write(path, [{**row, "id": n % 3} for n in range(4)])).report
    assert (report.kept, report.votes, report.duplicates) == (3, 2, 1)
    report = load_comparisons(write(path, [row] * 4)).report
    assert (report.kept, report.votes, report.duplicates) == (1, 0, 3)


def test_equal_replies_become_one_and_keep_their_stated_preferences(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "replies": ["a", "b ", "b", "", "c"], "preferences": [[0, 1], [2, 4], [1, 2], [0, 3]]}
    loaded = load_comparisons(write_lines(tmp_path / "mine.jsonl", [row]))
    (comparison,) = loaded.comparisons
    assert comparison.replies == ("a", "b", "c")
    assert stated(comparison) == {("a", "b", 1.0), ("b", "c", 1.0)}
    assert loaded.report.left_out == {"empty reply": 1, "equal replies": 1}


def test_replies_between_which_nothing_is_stated_are_dropped(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "replies": ["a", "b"], "preferences": []},
        {"prompt": "Hi", "replies": ["a", "a", "b"], "preferences": [[0, 1]]},
        own_row(ranks=[0, 1, 2]),
    ]
    report = load_comparisons(write_lines(tmp_path / "mine.jsonl", rows)).report
    assert report.dropped == {"no preference between the replies": 2}


def test_several_votes_on_one_pair_all_count(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "replies": ["a", "b"], "preferences": [[0, 1], [0, 1], [1, 0], [0, 1, 0.5]]}
    report = load_comparisons(write_lines(tmp_path / "mine.jsonl", [row])).report
    assert (report.kept, report.pairs, report.ties) == (1, 4, 1)


def test_limit_stops_reading(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "mine.jsonl", [own_row(prompt=f"{i}?", ranks=[0, 1, 2]) for i in range(9)] + [{"bad": 1}]
    )
    report = load_comparisons(path, limit=4).report
    assert (report.rows, report.kept) == (4, 4)
    with pytest.raises(BadInput, match="limit is 0"):
        load_comparisons(path, limit=0)


def test_an_unnamed_file_is_one_piece_until_a_split_is_asked_for(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [own_row(prompt=f"{i}?", ranks=[0, 1, 2]) for i in range(50)])
    assert [*load_splits(path)] == ["all"]
    kept = [load_comparisons(path, split=split).report.kept for split in ("train", "validation")]
    assert sum(kept) == load_comparisons(path).report.kept == 50
    assert kept[0] > kept[1] > 0


def test_no_comparison_at_all_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    rows = [own_row(replies=["a"], ranks=[0]), own_row(replies=["a", "a"], ranks=[0, 1])]
    with pytest.raises(BadData, match=r"no comparison in 2 rows \(fewer than two replies: 1, equal replies: 1\)"):
        load_comparisons(write_lines(tmp_path / "mine.jsonl", rows))


def test_reports_merge_by_adding_up(tmp_path: Path) -> None:
    first = load_comparisons(write_lines(tmp_path / "a.jsonl", [own_row(ranks=[0, 0, 1])] * 2)).report
    second = load_comparisons("starter", split="train").report
    merged = merge_reports([first, second])
    assert merged.rows == first.rows + second.rows
    assert merged.candidates == merged.kept + sum(merged.dropped.values())
    assert (merged.ties, merged.duplicates) == (first.ties + second.ties, 1)
    assert merged.to_json()["dropped"]["duplicate"] == 1
    with pytest.raises(ValueError, match="no reports"):
        merge_reports([])


def test_eval_is_validation_or_test_where_there_is_no_validation(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    for folder, names in {"both": ("train", "validation", "test"), "test": ("train", "test")}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.jsonl").write_text(json.dumps(row | {"prompt": name}) + "\n")
    assert load_comparisons(tmp_path / "both", split="eval").report.split == "validation"
    assert load_comparisons(tmp_path / "test", split="eval").comparisons[0].prompt[0].text == "test"


def test_a_voter_of_two_votes_with_ids_of_their_own_has_two(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "voter": "me"}
    assert votes(tmp_path / "a.jsonl", [{**row, "id": "1"}, {**row, "id": "2"}, {**row, "id": "2"}])[1:] == (1, 1)
    assert votes(tmp_path / "a.jsonl", [row, row, {**row, "voter": "you"}])[1:] == (1, 1)
