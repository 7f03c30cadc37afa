"""OASST: siblings by rank, rebuilt by parent ids, from flat messages, trees and threads alike."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.data import load_comparisons
from prefrank.data.candidates import FEW_REPLIES
from prefrank.data.oasst import (
    BAD_PROMPT,
    DELETED,
    FAILED_REVIEW,
    NO_PARENT,
    NOT_READY,
    OTHER_LANGUAGE,
    SYNTHETIC,
    UNRANKED,
)
from prefrank.errors import BadData, BadInput
from prefrank.types import Turn
from tests.data.files import message, own_row, stated, user, write_lines, write_parquet

TREE = [
    message("p0", None, "How do I bake bread?"),
    message("a0", "p0", "Mix, knead, wait, bake.", rank=0),
    message("p1", "a0", "How long?"),
    message("a2", "p1", "An hour.", rank=1),
    message("a3", "p1", "About forty minutes at 220 degrees.", rank=0),
    message("a1", "p0", "Buy it.", rank=1),
]


def load(tmp_path: Path, rows: list[dict[str, Any]], **options: Any):
    return load_comparisons(write_lines(tmp_path / "messages.jsonl.gz", rows), **options)


def test_replies_to_one_message_are_compared_by_rank_zero_best(tmp_path: Path) -> None:
    loaded = load(tmp_path, TREE)
    root, later = loaded.comparisons
    assert (root.id, root.prompt) == ("p0", user("How do I bake bread?"))
    assert stated(root) == {("Mix, knead, wait, bake.", "Buy it.", 1.0)}
    assert later.prompt == (*root.prompt, Turn("assistant", "Mix, knead, wait, bake."), Turn("user", "How long?"))
    assert later.replies[0] == "About forty minutes at 220 degrees."
    assert stated(later) == {("About forty minutes at 220 degrees.", "An hour.", 1.0)}
    assert (loaded.report.rows, loaded.report.candidates) == (6, 2)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(TREE))
def test_row_order_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("oasst")
    assert {(c.id, c.prompt, c.replies, c.preferences) for c in load(folder, order).comparisons} == {
        (c.id, c.prompt, c.replies, c.preferences) for c in load(folder, TREE).comparisons
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"deleted": True}, DELETED),
        ({"synthetic": True}, SYNTHETIC),
        ({"review_result": False}, FAILED_REVIEW),
        ({"rank": None}, UNRANKED),
    ],
)
def test_an_unfit_reply_is_left_out_and_counted(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    unfit = {**message("a9", "p0", "Third reply.", rank=2), **fields}
    loaded = load(tmp_path, [*TREE, unfit])
    assert loaded.report.left_out == {reason: 1}
    assert stated(loaded.comparisons[0]) == {("Mix, knead, wait, bake.", "Buy it.", 1.0)}


def test_an_unranked_first_reply_does_not_cost_its_siblings_their_order(tmp_path: Path) -> None:
    rows = [TREE[0], message("a9", "p0", "Nobody ranked me."), TREE[1], TREE[5]]
    assert stated(load(tmp_path, rows).comparisons[0]) == {("Mix, knead, wait, bake.", "Buy it.", 1.0)}


def test_a_reply_with_a_null_review_counts_if_it_is_ranked(tmp_path: Path) -> None:
    rows = [*TREE[:2], {**TREE[5], "review_result": None}]
    assert load(tmp_path, rows).report.kept == 1


def test_a_row_that_is_a_message_and_a_thread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r":1: the row holds 'message_id' and 'thread'; wanted one of"):
        load(tmp_path, [{**TREE[0], "thread": [TREE[0]]}])


def test_one_usable_reply_makes_no_comparison(tmp_path: Path) -> None:
    assert load(tmp_path, TREE[:5]).report.dropped == {FEW_REPLIES: 1}


@pytest.mark.parametrize("fields", [{"deleted": True}, {"synthetic": True}, {"review_result": False}])
def test_an_unfit_message_in_the_prompt_drops_what_follows_it(tmp_path: Path, fields: dict[str, Any]) -> None:
    rows = [TREE[0], {**TREE[1], **fields}, *TREE[2:], message("a9", "p0", "Third.", rank=2)]
    loaded = load(tmp_path, rows)
    assert loaded.report.dropped == {BAD_PROMPT: 1}
    assert stated(loaded.comparisons[0]) == {("Buy it.", "Third.", 1.0)}


@pytest.mark.parametrize("state", ["prompt_lottery_waiting", "growing", "halted_by_moderator", "aborted_low_grade"])
def test_a_tree_that_is_not_ready_is_dropped(tmp_path: Path, state: str) -> None:
    other = [
        message("p5", None, "Hi", tree_state=state),
        message("a5", "p5", "Hello", rank=0),
        message("a6", "p5", "Ho", rank=1),
    ]
    loaded = load(tmp_path, [*TREE, *other])
    assert (loaded.report.kept, loaded.report.dropped) == (2, {NOT_READY: 1})


def test_a_message_whose_parent_is_missing_is_dropped_not_hung_elsewhere(tmp_path: Path) -> None:
    loaded = load(tmp_path, [row for row in [*TREE, message("a9", "p0", "C", rank=2)] if row["message_id"] != "a0"])
    assert loaded.report.dropped == {NO_PARENT: 1}
    circle = [message("p5", "a5", "Hi"), message("a5", "p5", "Hello", rank=0), message("a6", "p5", "Ho", rank=1)]
    assert load(tmp_path, [*TREE, *circle]).report.dropped == {NO_PARENT: 1}


def test_lang_keeps_trees_by_their_first_message(tmp_path: Path) -> None:
    german = [
        message("p5", None, "Hallo", lang="de"),
        message("a5", "p5", "Guten Tag", rank=0),
        message("a6", "p5", "Na", rank=1),
    ]
    assert load(tmp_path, [*TREE, *german]).report.kept == 3
    assert [c.id for c in load(tmp_path, [*TREE, *german], lang="de").comparisons] == ["p5"]
    assert load(tmp_path, [*TREE, *german], lang="en").report.dropped == {OTHER_LANGUAGE: 1}
    with pytest.raises(BadInput, match="lang='en' is for OASST"):
        load_comparisons(write_lines(tmp_path / "own.jsonl", [own_row(ranks=[0, 1, 2])]), lang="en")


def nested(rows: list[dict[str, Any]], parent: str | None = None) -> list[dict[str, Any]]:
    """Flat rows as the nodes of the tree export, which leaves null and default fields out."""
    fields = ("message_id", "text", "role", "lang", "rank", "parent_id")
    return [
        {**{k: row[k] for k in fields if row[k] is not None}, "replies": nested(rows, row["message_id"])}
        for row in rows
        if row["parent_id"] == parent
    ]


def test_tree_export_threads_and_messages_agree(tmp_path: Path) -> None:
    tree = {"message_tree_id": "p0", "tree_state": "ready_for_export", "prompt": nested(TREE)[0]}
    by_id = {row["message_id"]: row for row in TREE}
    paths = [["p0", "a0", "p1", "a2"], ["p0", "a0", "p1", "a3"], ["p0", "a1"]]
    threads = [{"thread_id": path[-1], "thread": [by_id[id] for id in path]} for path in paths]
    expected = {(c.id, c.prompt, c.replies, c.preferences) for c in load(tmp_path, TREE).comparisons}
    for name, rows in (("trees.jsonl", [tree]), ("threads.jsonl.gz", threads)):
        comparisons = load_comparisons(write_lines(tmp_path / name, rows)).comparisons
        assert {(c.id, c.prompt, c.replies, c.preferences) for c in comparisons} == expected


@pytest.mark.parametrize("labels", [{"name": ["spam"], "value": [0.1], "count": [3]}, [{"name": "spam", "value": 0.1}]])
def test_both_forms_of_labels_load_from_parquet(tmp_path: Path, labels: Any) -> None:
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", [{**row, "labels": labels} for row in TREE])
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", TREE[:2] + TREE[5:])
    write_lines(tmp_path / "2023-04-12_oasst_ready.trees.jsonl.gz", [{"message_tree_id": "p0", "prompt": TREE[0]}])
    assert load_comparisons(tmp_path, split="train").report.kept == 2
    loaded = load_comparisons(tmp_path, split="validation")
    assert loaded.report.files == ("data/validation-00000-of-00001.parquet",)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("role", "system", "wanted prompter or assistant"),
        ("rank", "first", "wanted a finite number"),
        ("deleted", "no", "wanted true or false"),
        ("text", None, "wanted a string"),
    ],
)
def test_a_wrong_field_names_file_and_line(tmp_path: Path, field: str, value: Any, wanted: str) -> None:
    rows = json.loads(json.dumps(TREE))
    rows[3][field] = value
    with pytest.raises(BadData, match=rf"messages\.jsonl\.gz:4: '{field}' holds .*{wanted}"):
        load(tmp_path, rows)
