"""Texts that hold more than text: cells of CSV files, and messages written as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData
from prefrank.types import Comparison, Preference, Turn
from tests.data.files import stated, user, webgpt_row, write_csv, write_lines, write_parquet
from tests.data.test_oasst import TREE

ASKED = [{"role": "user", "content": "A colour?"}]
PAIR = {"prompt": "A colour?", "chosen": "Blue.", "rejected": "Tuesday."}
VOTE = ("Blue.", "Tuesday.", 1.0)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def from_csv(tmp_path: Path, *rows: dict[str, Any]) -> Comparison:
    (comparison,) = load_comparisons(write_csv(tmp_path / "a.csv", list(rows))).comparisons
    return comparison


@pytest.mark.parametrize("write", [write_lines, write_parquet, write_csv])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "A colour?", "chosen": ASKED + said("Blue."), "rejected": ASKED + said("Tuesday.")},
        {"prompt": ASKED, "chosen": said("Blue."), "rejected": said("Tuesday.")},
        {"chosen": ASKED + said("Blue."), "rejected": ASKED + said("Tuesday."), "source": "mine"},
        {"conversations": [{"from": "human", "value": "A colour?"}], "chosen": {"from": "gpt", "value": "Blue."},
         "rejected": {"from": "gpt", "value": "Tuesday."}},
    ],
)  # fmt: skip
def test_messages_written_as_json_are_messages_and_never_a_reply(tmp_path: Path, write: Any, row: Any) -> None:
    as_json = {name: json.dumps(one) if isinstance(one, list | dict) else one for name, one in row.items()}
    if write is not write_csv and "conversations" in row:
        as_json["conversations"] = row["conversations"]
    suffix = {write_lines: "jsonl", write_parquet: "parquet", write_csv: "csv"}[write]
    (comparison,) = load_comparisons(write(tmp_path / f"a.{suffix}", [as_json])).comparisons
    assert (comparison.prompt, stated(comparison)) == (user("A colour?"), {VOTE})


@pytest.mark.parametrize("name", ["prompt", "chosen"])
def test_messages_as_python_prints_them_are_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    row = {**PAIR, name: str(ASKED)}
    with pytest.raises(BadData, match=rf"a.csv:2: '{name}' holds .*as Python prints them; write the column with json"):
        from_csv(tmp_path, row)


def test_a_reply_that_is_json_is_a_reply(tmp_path: Path) -> None:
    comparison = from_csv(tmp_path, {**PAIR, "chosen": "[1, 2]", "rejected": '{"a": 1}'})
    assert comparison.replies == ("[1, 2]", '{"a": 1}')


def test_numbers_of_a_csv_file_are_numbers_where_readers_want_them(tmp_path: Path) -> None:
    margin = {**PAIR, "margin": "0.5", "probability": "", "strength": "2"}
    assert from_csv(tmp_path, margin).preferences == (Preference(0, 1, margin=0.5, strength=2),)
    helpsteer = {"prompt": "A colour?", "response_1": "Blue.", "response_2": "Tuesday.", "preference_strength": -2}
    assert from_csv(tmp_path, helpsteer).preferences == (Preference(0, 1, strength=2),)
    ranked = {"prompt": "A colour?", "replies": ["Tuesday.", "Blue."], "ratings": {"overall": [1, 5]}}
    assert stated(from_csv(tmp_path, ranked)) == {VOTE}
    with pytest.raises(BadData, match=r"a.csv:2: 'margin' holds 'much'; wanted a finite number"):
        from_csv(tmp_path, {**PAIR, "margin": "much"})


def test_lists_of_published_sets_are_read_from_a_csv_file(tmp_path: Path) -> None:
    answers = [{"answer": "Tuesday.", "model": "a", "rank": 2.0}, {"answer": "Blue.", "model": "b", "rank": 1.0}]
    assert stated(from_csv(tmp_path, {"prompt": "\n\nHuman: A colour?\n\nAssistant:", "answers": answers})) == {VOTE}
    rated = {"instruction": "A colour?", "generations": ["Tuesday.", "Blue."], "ratings": [1, 5]}
    assert stated(from_csv(tmp_path, rated)) == {VOTE}
    arena = {"winner": "model_a", "turn": 1, "question_id": "q", "conversation_a": ASKED + said("Blue."),
             "conversation_b": ASKED + said("Tuesday.")}  # fmt: skip
    assert stated(from_csv(tmp_path, arena)) == {VOTE}
    code = {"instruction": "A colour?", "preference": "style",
            "responses": [{"model": "a", "response": "Blue."}, {"model": "b", "response": "Tuesday."}],
            "annotations": [{"model": "b", "rating": "2"}, {"model": "a", "rating": "5"}]}  # fmt: skip
    assert stated(from_csv(tmp_path, code)) == {VOTE}


def test_flattened_columns_of_a_csv_file_are_read_by_their_dots(tmp_path: Path) -> None:
    row = webgpt_row("Blue.", "Tuesday.", 1.0)
    flat = {"question": "Why?", "in.question": "A colour?", "score_0": 1.0, "score_1": -1.0}
    path = write_csv(tmp_path / "a.csv", [{**flat, "answer_0": row["answer_0"], "answer_1": row["answer_1"]}])
    (comparison,) = load_comparisons(path, columns={"question.full_text": "in.question"}).comparisons
    assert (comparison.prompt, stated(comparison)) == ((Turn("user", "A colour?"),), {VOTE})


def test_dotted_names_reach_into_objects_written_in_cells(tmp_path: Path) -> None:
    row = {"in": {"question": "A colour?"}, "good": "Blue.", "bad": "Tuesday."}
    columns = {"prompt": "in.question", "chosen": "good", "rejected": "bad"}
    path = write_csv(tmp_path / "a.csv", [row])
    assert load_comparisons(path, columns=columns).comparisons[0].prompt == user("A colour?")
    with pytest.raises(BadData, match=r"a.csv:2: no column 'in\.answer'"):
        load_comparisons(path, columns={**columns, "prompt": "in.answer"})


def test_a_csv_file_of_a_tree_is_the_tree(tmp_path: Path) -> None:
    tree = [row | {"review_result": None} for row in TREE]
    paths = write_lines(tmp_path / "a.jsonl", tree), write_csv(tmp_path / "b.csv", tree)
    want, read = (load_comparisons(path).comparisons for path in paths)
    assert [(comparison.prompt, stated(comparison)) for comparison in read] == [
        (comparison.prompt, stated(comparison)) for comparison in want
    ]
