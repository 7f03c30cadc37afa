"""Single replies called good or bad: KTO files of TRL, LLaMA-Factory and ms-swift."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data import load_comparisons
from prefrank.data.pointwise import ONE_LABEL
from prefrank.data.report import Loaded
from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData, BadInput
from prefrank.types import Turn
from tests.data.files import stated, user, write_csv, write_lines, write_parquet

REPLIES = [("Blue.", True), ("Tuesday.", False), ("Red.", True)]
EXPECTED = {("Blue.", "Tuesday.", 1.0), ("Red.", "Tuesday.", 1.0)}


def load(tmp_path: Path, rows: list[dict[str, Any]]) -> Loaded:
    return load_comparisons(write_lines(tmp_path / "kto.jsonl", rows))


def talk(question: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def shared(question: str, reply: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]


def rows_of(layout: str, question: str = "A colour?") -> list[dict[str, Any]]:
    make: dict[str, Any] = {
        "texts": lambda reply, label: {"prompt": question, "completion": reply, "label": label},
        "messages": lambda reply, label: {
            "prompt": talk(question, reply)[:1], "completion": talk(question, reply)[1:], "label": label
        },
        "alpaca": lambda reply, label: {"instruction": question, "input": "", "output": reply, "kto_tag": label},
        "sharegpt": lambda reply, label: {"conversations": shared(question, reply), "kto_tag": label},
        "tagged": lambda reply, label: {"messages": talk(question, reply), "kto_tag": label},
        "swift": lambda reply, label: {"messages": talk(question, reply), "label": label},
    }  # fmt: skip
    return [make[layout](*one) for one in REPLIES]


@pytest.mark.parametrize("layout", ["texts", "messages", "alpaca", "sharegpt", "tagged", "swift"])
def test_each_good_reply_of_a_prompt_is_preferred_to_each_bad_one(tmp_path: Path, layout: str) -> None:
    rows = rows_of(layout)
    for path in (
        write_lines(tmp_path / "kto.jsonl", rows),
        write_parquet(tmp_path / "kto.parquet", rows),
        write_csv(tmp_path / "kto.csv", rows),
        write_lines(tmp_path / "system.jsonl", [{**row, "system": "Be terse."} for row in rows]),
    ):
        (comparison,) = load_comparisons(path).comparisons
        assert stated(comparison) == EXPECTED
        system = (Turn("system", "Be terse."),) if path.stem == "system" else ()
        assert comparison.prompt == (*system, *user("A colour?"))


def test_a_prompt_with_one_kind_of_label_and_a_reply_without_one_are_counted(tmp_path: Path) -> None:
    rows = [*rows_of("texts"), rows_of("texts", "A day?")[0], {**rows_of("texts")[0], "label": None}]
    report = load(tmp_path, rows).report
    assert (report.kept, report.dropped) == (1, {ONE_LABEL: 1, "no label": 1})
    with pytest.raises(BadData, match=f"no comparison in 1 rows \\({ONE_LABEL}: 1\\)"):
        load(tmp_path, rows_of("texts")[:1])


def test_a_label_may_be_a_word_or_a_number(tmp_path: Path) -> None:
    labels = ["True", "false", 1]
    rows = [{**row, "label": label} for row, label in zip(rows_of("texts"), labels, strict=True)]
    assert stated(load(tmp_path, rows).comparisons[0]) == EXPECTED


def test_another_label_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    rows = rows_of("texts")
    rows[1]["label"] = "bad"
    with pytest.raises(BadData, match=r"kto\.jsonl:2: 'label' holds 'bad'; wanted true or false"):
        load(tmp_path, rows)


def test_a_reply_that_is_no_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"kto\.jsonl:1: 'completion' holds null; wanted"):
        load(tmp_path, [{"prompt": "A colour?", "completion": None, "label": True}])


def test_replies_that_are_gathered_by_prompt_cannot_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="gathered from many rows"):
        ComparisonStream(str(write_lines(tmp_path / "kto.jsonl", rows_of("texts"))))


def test_a_reply_judged_twice_under_ids_of_their_own_counts_twice_and_a_copy_once(tmp_path: Path) -> None:
    good = {"prompt": "A colour?", "completion": "Blue.", "label": True}
    bad = {"prompt": "A colour?", "completion": "Tuesday.", "label": False}
    copies = load(tmp_path, [good, good, bad])
    assert (len(copies.comparisons[0].preferences), copies.report.duplicates) == (1, 1)
    voted = load(tmp_path, [{**good, "id": 1}, {**good, "id": 2}, {**bad, "id": 3}])
    assert (len(voted.comparisons[0].preferences), voted.report.duplicates) == (2, 0)


@pytest.mark.parametrize("prompt", ["q", [{"role": "user", "content": "q"}]])
def test_a_completion_that_repeats_the_prompt_repeats_no_turn(tmp_path: Path, prompt: Any) -> None:
    rows = [
        {
            "prompt": prompt,
            "completion": [{"role": "user", "content": "q"}, {"role": "assistant", "content": reply}],
            "label": good,
        }
        for reply, good in (("yes", True), ("no", False))
    ]
    (comparison,) = load(tmp_path, rows).comparisons
    assert comparison.prompt == (Turn("user", "q"),)
