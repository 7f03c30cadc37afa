"""Pairs without a prompt column: a prompt is never made of words that two answers share."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.data import load_comparisons
from prefrank.data.candidates import Candidate, Drop, settle
from prefrank.data.hh import ENDS_IN_HUMAN, PROMPTS_DIFFER
from prefrank.data.own import own
from prefrank.errors import BadData
from prefrank.types import Turn
from tests.data.files import hh_row, user, write_lines, write_parquet
from tests.data.test_own import chat

GAS = {"chosen": "The gas is carbon dioxide.", "rejected": "The gas is helium, of course."}
COLUMNS = ["question", "user_input", "text", "conversation", "source_text", "post_body", "Frage"]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_a_text_column_that_may_be_the_prompt_is_named_with_the_cure(tmp_path: Path, name: str, write: Any) -> None:
    row = {"system": "Be terse.", name: "Which gas do plants take in?", **GAS}
    path = write(tmp_path / ("a.jsonl" if write is write_lines else "a.parquet"), [row])
    if name != "question":  # read as a published layout where one is known
        with pytest.raises(BadData, match=rf"'{name}' could be it.*columns: \{{prompt: {name}\}}"):
            load_comparisons(path)
    (comparison,) = load_comparisons(path, columns={"prompt": name}).comparisons
    assert comparison.prompt == (Turn("system", "Be terse."), *user("Which gas do plants take in?"))
    assert comparison.replies == (GAS["chosen"], GAS["rejected"])


@pytest.mark.parametrize(
    "value", ["Which gas?", [{"role": "user", "content": "Which gas?"}], [["Which gas?", "Which?"]]]
)
@pytest.mark.parametrize(
    "pair", [GAS, hh_row("Hi", "a", "b"), {"chosen": chat("Hi", "a"), "rejected": chat("Hi", "b")}]
)
def test_no_prompt_is_found_in_the_sides_where_another_column_holds_a_text(pair: dict[str, Any], value: Any) -> None:
    with pytest.raises(BadData, match="no column 'prompt', and 'asked' could be it"):
        own({"asked": value, **pair})
    with pytest.raises(BadData, match="'asked' and 'also' could each be it"):
        own({"asked": value, "also": "That gas.", **pair})


@pytest.mark.parametrize(
    "column",
    [
        {"prompt_id": "a1b2"}, {"dataset": "orca"}, {"chosen_model": "m"}, {"model_rejected": "m"}, {"lang": "en"},
        {"sourceUrl": "u"}, {"made": "2024-02-01T00:00:00Z"},
        {"chosen_response": "b"}, {"num_turns": 3}, {"question": None}, {"question": " "},
        {"question": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}]},
    ],
)  # fmt: skip
def test_what_is_about_a_row_or_said_in_it_anyway_is_no_other_prompt(column: dict[str, Any]) -> None:
    for pair in (hh_row("Hi", "a", "b"), {"chosen": chat("Hi", "a"), "rejected": chat("Hi", "b")}):
        candidate = own({**pair, **column})
        assert isinstance(candidate, Candidate)
        assert (candidate.prompt, candidate.replies) == (user("Hi"), ("a", "b"))


@settings(deadline=None)
@given(st.text("ab .?\n", max_size=12), st.text("ab .?\n", max_size=8), st.text("ab .?\n", max_size=8))
def test_two_texts_without_a_turn_have_no_prompt(shared: str, chosen: str, rejected: str) -> None:
    with pytest.raises(BadData, match=r"no column 'prompt', and 'chosen' and 'rejected' share no beginning that ends"):
        own({"chosen": shared + chosen, "rejected": shared + rejected})


HEADERS = [
    ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    ("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    ("<|user|>\n", "<|end|>\n<|assistant|>\n"),
    ("[INST] ", " [/INST]"),
]


@pytest.mark.parametrize(("before", "between"), HEADERS)
def test_a_chat_templates_header_is_a_turns_border(before: str, between: str) -> None:
    def whole(*texts: str) -> str:
        return "".join((before, between)[i % 2] + text for i, text in enumerate(texts))

    context = ("Hi", "The gas.", "Which?")
    row = {"chosen": whole(*context, "The gas is air."), "rejected": whole(*context, "The gas is gold.")}
    candidate = settle(own(row))
    assert isinstance(candidate, Candidate)
    assert candidate.prompt[0].text == (whole(*context) + between).strip()
    assert candidate.replies == ("The gas is air.", "The gas is gold.")
    assert own({**row, "rejected": whole("Hi", "The oil.", "Which?", "x")}) == Drop(PROMPTS_DIFFER)
    assert own({**row, "rejected": whole(*context, "x", "And?")}) == Drop(ENDS_IN_HUMAN)


def test_a_transcript_is_read_in_any_row(tmp_path: Path) -> None:
    opening = {key: text.lstrip() for key, text in hh_row("And?", "c", "d").items()}
    rows = [{"chosen": chat("Hi", "a"), "rejected": chat("Hi", "b")}, hh_row("Ho", "c", "d"), opening]
    loaded = load_comparisons(write_lines(tmp_path / "mixed.jsonl", rows))
    assert [(comparison.prompt, comparison.replies) for comparison in loaded.comparisons] == [
        (user("Hi"), ("a", "b")),
        (user("Ho"), ("c", "d")),
        (user("And?"), ("c", "d")),
    ]


def test_a_later_row_without_a_prompt_is_refused_by_its_line(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "a", "rejected": "b"}, {"asked": "Which gas?", **GAS}]
    with pytest.raises(BadData, match=r"mine.jsonl:2: no column 'prompt', and 'asked' could be it"):
        load_comparisons(write_lines(tmp_path / "mine.jsonl", rows))


def test_a_parquet_column_that_is_no_text_does_not_hide_the_prompt_in_two_lists(tmp_path: Path) -> None:
    far = pa.array([10**15], pa.timestamp("s"))  # past the year 9999
    pair = {name: [chat("Hi", reply)] for name, reply in (("chosen", "a"), ("rejected", "b"))}
    pq.write_table(pa.table({**pair, "made": far}), tmp_path / "a.parquet")
    assert load_comparisons(tmp_path / "a.parquet").comparisons[0].prompt == user("Hi")
