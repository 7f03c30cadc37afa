"""Which columns make the prompt: one text alone, after its history and system turn, and none lost beside it."""

import re
from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.data.stream import MALFORMED, ComparisonStream
from prefrank.errors import BadData
from prefrank.types import Turn
from tests.data.files import user, write_csv, write_lines, write_parquet


@pytest.mark.parametrize("write", [write_lines, write_parquet, write_csv])
@pytest.mark.parametrize("name", ["instruction", "question", "query", "input", "context"])
def test_a_second_text_that_may_be_the_prompt_is_refused_by_name(tmp_path: Path, name: str, write: Any) -> None:
    pair = {"prompt": "A colour?", "chosen": "Blue.", "rejected": "Red."}
    path = tmp_path / f"a.{ {write_lines: 'jsonl', write_parquet: 'parquet', write_csv: 'csv'}[write] }"
    with pytest.raises(BadData, match=rf"'prompt' and '{name}' each hold a text that may be the prompt; keep one"):
        load_comparisons(write(path, [{**pair, name: "The passage."}]))
    for said in ("", "A colour?", "colour?"):
        assert load_comparisons(write(path, [{**pair, name: said}])).comparisons[0].prompt == user("A colour?")
    if name != "input":
        loaded = load_comparisons(write(path, [{**pair, name: "Other."}]), columns={"prompt": "prompt"})
        assert loaded.comparisons[0].prompt == user("A colour?")


def test_an_input_beside_a_prompt_is_read_as_the_error_says(tmp_path: Path) -> None:
    row = {"prompt": "Translate.", "input": "Katze", "chosen": "cat", "rejected": "dog"}
    path = write_lines(tmp_path / "a.jsonl", [row])
    with pytest.raises(BadData, match=re.escape("or join them: columns: {instruction: prompt, input: input}")):
        load_comparisons(path)
    loaded = load_comparisons(path, columns={"instruction": "prompt", "input": "input"})
    assert loaded.comparisons[0].prompt == user("Translate.\nKatze")


@pytest.mark.parametrize(
    "history", [[["Hi", "Hello."]], [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]]
)
def test_a_history_comes_before_the_prompt(tmp_path: Path, history: list[Any]) -> None:
    row = {"history": history, "prompt": "A colour?", "chosen": "Blue.", "rejected": "Red."}
    asked = (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "A colour?"))
    again = {**row, "prompt": [turn.message() for turn in asked]}
    for one in (row, {**row, "system": ""}, again):
        for path in (write_lines(tmp_path / "a.jsonl", [one]), write_parquet(tmp_path / "a.parquet", [one])):
            assert load_comparisons(path).comparisons[0].prompt == asked


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ({"instruction": "A colour?", "output_1": "Blue.", "output_2": "Red.", "label": 1}, "instruction"),
        ({"question": "A colour?", "response_j": "Blue.", "response_k": "Red."}, "question"),
        ({"query": "A colour?", "response": "Blue.", "rejected_response": "Red."}, "query"),
        ({"prompt": "A colour?", "response_0": "Red.", "response_1": "Blue.", "better_response_id": 1}, "prompt"),
        ({"prompt": "A colour?", "response_a": "Blue.", "response_b": "Red.", "winner": "model_a"}, "prompt"),
        ({"prompt": "A colour?", "chosen_response": "Blue.", "rejected_response": "Red."}, "prompt"),
    ],
)
def test_a_second_text_is_refused_in_every_format_and_naming_the_prompt_settles_it(
    tmp_path: Path, row: dict[str, Any], first: str
) -> None:
    for write, suffix in ((write_lines, "jsonl"), (write_parquet, "parquet"), (write_csv, "csv")):
        path = write(tmp_path / f"a.{suffix}", [{**row, "context": "The passage."}])
        cure = f"say which it is: columns: {{{first}: {first}}} (--columns {first}={first})"
        with pytest.raises(BadData, match=rf"'{first}' and 'context' each hold a text .*{re.escape(cure)}"):
            load_comparisons(path)
        assert load_comparisons(path, columns={first: first}).comparisons[0].prompt == user("A colour?")
        said: list[str] = []
        assert not list(ComparisonStream(str(path)).read(said.append))
        assert said == [MALFORMED]


@pytest.mark.parametrize("name", ["input", "history"])
def test_a_labelled_reply_loses_no_text_of_its_prompt(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "A colour?", "completion": reply, "label": reply == "Blue."} for reply in ("Blue.", "Red.")]
    path = write_lines(tmp_path / "kto.jsonl", [{**row, name: [["Hi", "Hello."]]} for row in rows])
    with pytest.raises(BadData, match=f"'prompt' and '{name}' each hold .*; keep one, or join them in one column"):
        load_comparisons(path)


@pytest.mark.parametrize("none", [None, ""])
def test_a_prompt_column_that_holds_nothing_does_not_hide_the_question(tmp_path: Path, none: str | None) -> None:
    row = {"prompt": none, "question": "A colour?", "chosen": "Blue.", "rejected": "Red."}
    path = write_lines(tmp_path / "a.jsonl", [row])
    assert load_comparisons(path).comparisons[0].prompt == user("A colour?")


@pytest.mark.parametrize("name", ["sys_prompt", "system_instruction", "systemPrompt"])
@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_a_system_column_of_another_name_is_read(tmp_path: Path, name: str, write: Any) -> None:
    row = {name: "Be brief.", "prompt": "A colour?", "chosen": "Blue.", "rejected": "Red."}
    path = tmp_path / ("a.jsonl" if write is write_lines else "a.parquet")
    assert load_comparisons(write(path, [row])).comparisons[0].prompt[0] == Turn("system", "Be brief.")


def test_a_transcript_that_lost_its_first_blank_line_is_one_where_it_ends_in_the_reply_to_come(tmp_path: Path) -> None:
    row = {"prompt": "Human: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " No."}
    plain = {**row, "prompt": "Human: a word for people?"}
    path = write_lines(tmp_path / "a.jsonl", [row, plain])
    assert [comparison.prompt for comparison in load_comparisons(path).comparisons] == [
        user("Hi"),
        user(plain["prompt"]),
    ]
