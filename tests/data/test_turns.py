"""Conversations: repeated turns count once, the system turn is read, tool turns stay, a tool call is not a reply."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.data import load_comparisons
from prefrank.data.candidates import OTHER_SYSTEM, Candidate, Drop, settle
from prefrank.data.hh import PROMPTS_DIFFER
from prefrank.data.own import TOOL_CALL, own
from prefrank.data.stream import ComparisonStream
from prefrank.errors import BadData
from prefrank.types import Turn
from tests.data.files import hh_row, own_row, shp_row, user, webgpt_row, write_lines, write_parquet
from tests.data.test_own import chat

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "A colour?"}
BLUE, RED = ({"role": "assistant", "content": text} for text in ("Blue.", "Red."))
TURNS = (Turn("system", "Be brief."), Turn("user", "A colour?"))

MESSAGES = st.lists(
    st.builds(
        dict,
        role=st.sampled_from(["user", "assistant", "tool"]),
        content=st.text("abc ", min_size=1, max_size=3).filter(str.strip),
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda one: (one["role"], one["content"].strip()),
)


@settings(deadline=None)
@given(st.booleans(), MESSAGES, st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_a_conversation_split_anywhere_gives_the_same_comparison(
    system: bool, messages: list[dict[str, str]], ends: int, chosen: int, rejected: int, bare: bool
) -> None:
    conversation = [SYSTEM, *messages] if system else messages
    ends = min(ends, len(conversation))
    starts = [min(start, ends) for start in (chosen, rejected)]
    row: dict[str, Any] = {"prompt": conversation[:ends]}
    for name, start, reply in zip(("chosen", "rejected"), starts, (BLUE, RED), strict=True):
        completion = [*conversation[start:], reply]
        row[name] = reply["content"] if bare and len(completion) == 1 else completion
    expected = tuple(Turn(one["role"], one["content"].strip()) for one in conversation)  # type: ignore[arg-type]
    found = own(row)
    assert isinstance(found, Candidate)
    assert (found.prompt, found.replies) == (expected, ("Blue.", "Red."))


def test_a_user_turn_that_prompt_and_completions_both_hold_counts_once() -> None:
    found = own({"prompt": [SYSTEM, USER], "chosen": [USER, BLUE], "rejected": [USER, RED]})
    assert isinstance(found, Candidate)
    assert found.prompt == TURNS


def test_completions_may_add_the_system_turn_but_not_change_it() -> None:
    other = {"role": "system", "content": "Be long."}
    added = own({"prompt": [USER], "chosen": [SYSTEM, USER, BLUE], "rejected": [SYSTEM, USER, RED]})
    assert isinstance(added, Candidate)
    assert added.prompt == TURNS
    changed = {"prompt": [other, USER], "chosen": [SYSTEM, USER, BLUE], "rejected": [SYSTEM, USER, RED]}
    assert own(changed) == Drop(PROMPTS_DIFFER)


@pytest.mark.parametrize("prompt", ["", " ", []])
def test_an_empty_prompt_puts_no_turn_before_the_messages(prompt: Any) -> None:
    found = own({"prompt": prompt, "chosen": [SYSTEM, USER, BLUE], "rejected": [SYSTEM, USER, RED]})
    assert isinstance(found, Candidate)
    assert found.prompt == TURNS
    assert settle(own({"prompt": prompt, "chosen": [BLUE], "rejected": [RED]})) == Drop("empty prompt")


def test_one_message_stands_for_a_list_of_one() -> None:
    assert own({"prompt": USER, "chosen": BLUE, "rejected": RED}) == own(
        {"prompt": [USER], "chosen": [BLUE], "rejected": [RED]}
    )


def test_sharegpt_messages_are_read_as_ours() -> None:
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}

    def sharegpt(message: dict[str, str]) -> dict[str, str]:
        return {"from": speakers[message["role"]], "value": message["content"]}

    row = {"prompt": [SYSTEM, USER], "chosen": BLUE, "rejected": [RED]}
    theirs = {"prompt": [*map(sharegpt, row["prompt"])], "chosen": sharegpt(BLUE), "rejected": [sharegpt(RED)]}
    assert own(theirs) == own(row)


def test_a_transcript_in_any_column_is_read_as_its_turns() -> None:
    opening = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A colour?"
    expected = own({"prompt": chat("Hi", "Hello.", "A colour?"), "chosen": "Blue.", "rejected": "Red."})
    sides = {"chosen": f"{opening}\n\nAssistant: Blue.", "rejected": f"{opening}\n\nAssistant: Red."}
    assert own({"prompt": f"{opening}\n\nAssistant:", "chosen": " Blue.", "rejected": " Red."}) == expected
    assert own({"prompt": f"{opening}\n\nAssistant:", **sides}) == own({"prompt": "A colour?", **sides}) == expected
    ranked = own({"prompt": f"{opening}\n\nAssistant: ", "replies": ["Blue.", "Red."], "ranks": [0, 1]})
    assert isinstance(ranked, Candidate)
    assert isinstance(expected, Candidate)
    assert ranked.prompt == expected.prompt
    quoted = own({"prompt": "Human: is that a word?", "chosen": "\n\nHuman: yes", "rejected": "No."})
    assert isinstance(quoted, Candidate)
    assert (quoted.prompt, quoted.replies) == (user("Human: is that a word?"), ("Human: yes", "No."))


ROWS = {
    "pairs": {"prompt": "A colour?", "chosen": "Blue.", "rejected": "Red."},
    "implicit": {"chosen": [USER, BLUE], "rejected": [USER, RED]},
    "replies": {"prompt": "A colour?", "replies": ["Blue.", "Red."], "ranks": [0, 1]},
    "ranked list": {"instruction": "A colour?", "output": ["Blue.", "Red."]},
    "transcripts": hh_row("A colour?", "Blue.", "Red."),
    "private": {"prompt": "A colour?", "pos": "Blue.", "neg_replies": ["Red."]},
    "shp": shp_row(history="A colour?"),
    "webgpt": webgpt_row("Blue.", "Red.", 1.0, "A colour?"),
    "helpsteer pair": {"prompt": "A colour?", "response_1": "Blue.", "response_2": "Red.", "preference_strength": -1},
    "helpsteer3": {"context": [USER], "response1": "Blue.", "response2": "Red.", "overall_preference": -1},
    "hellaswag": {"ctx": "A colour?", "endings": ["Blue.", "Red."], "label": 0},
}


@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize("name", ROWS)
def test_a_system_column_is_the_first_turn_in_every_format(tmp_path: Path, name: str, column: str) -> None:
    rows = [{**ROWS[name], column: " Be brief.\n"}]
    lines, parquet = write_lines(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)
    for path in (lines, parquet):
        (comparison,) = load_comparisons(path).comparisons
        assert comparison.prompt == TURNS
    assert next(ComparisonStream(str(lines)).read(print)).prompt == TURNS


@pytest.mark.parametrize("system", ["", "  ", None])
@pytest.mark.parametrize("name", ROWS)
def test_an_empty_system_column_is_no_turn(tmp_path: Path, name: str, system: str | None) -> None:
    (comparison,) = load_comparisons(write_lines(tmp_path / "a.jsonl", [{**ROWS[name], "system": system}])).comparisons
    assert comparison.prompt == user("A colour?")


def test_rated_responses_are_grouped_by_system_turn_and_prompt(tmp_path: Path) -> None:
    rated = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 1)
    rows = [
        {"prompt": "A colour?", "response": text, "helpfulness": number, "system": system, **rated}
        for system in ("Be brief.", "Be long.")
        for number, text in enumerate(("Blue.", "Red."))
    ]
    prompts = [
        comparison.prompt for comparison in load_comparisons(write_lines(tmp_path / "a.jsonl", rows)).comparisons
    ]
    assert prompts == [TURNS, (Turn("system", "Be long."), TURNS[1])]


def test_a_system_column_that_the_prompt_repeats_counts_once_and_another_one_is_dropped(tmp_path: Path) -> None:
    row = {"prompt": [SYSTEM, USER], "chosen": "Blue.", "rejected": "Red.", "system": "Be brief."}
    other = {**row, "system": "Be long."}
    loaded = load_comparisons(write_lines(tmp_path / "a.jsonl", [row, other]))
    assert [comparison.prompt for comparison in loaded.comparisons] == [TURNS]
    assert loaded.report.dropped == {OTHER_SYSTEM: 1}
    with pytest.raises(BadData, match=r"a.jsonl:1: 'system' and 'system_prompt' hold different texts; keep one"):
        load_comparisons(write_lines(tmp_path / "a.jsonl", [{**row, "system_prompt": "Be loud."}]))


def test_a_system_turn_alone_is_no_prompt(tmp_path: Path) -> None:
    rows = [{**ROWS["pairs"]}, {**ROWS["pairs"], "prompt": " ", "system": "Be brief."}]
    assert load_comparisons(write_lines(tmp_path / "a.jsonl", rows)).report.dropped == {"empty prompt": 1}


CALL = {"tool_calls": [{"type": "function", "function": {"name": "paint", "arguments": "{}"}}]}


def test_tool_turns_of_a_prompt_are_kept_with_their_calls() -> None:
    parts = [{"type": "text", "text": "A "}, {"type": "text", "text": "colour? "}]
    prompt = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": " Wait. ", **CALL},
        {"role": "tool", "content": "blue", "tool_call_id": "1"},
    ]
    found = settle(own({"prompt": prompt, "chosen": "Blue.", "rejected": "Red."}))
    assert isinstance(found, Candidate)
    assert [turn.message() for turn in found.prompt] == [
        {"role": "user", "content": "A colour?"},
        {"role": "assistant", "content": "Wait.", **CALL},
        {"role": "tool", "content": "blue", "tool_call_id": "1"},
    ]


@pytest.mark.parametrize("content", [None, "", "I call."])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_completion_that_calls_a_tool_is_dropped_by_name(content: str | None, side: str) -> None:
    row = {"prompt": [USER], "chosen": [BLUE], "rejected": [RED]}
    assert own({**row, side: [{"role": "assistant", "content": content, **CALL}]}) == Drop(TOOL_CALL)
    message = {"role": "assistant", "content": content or "x", "tool_calls": None}
    assert isinstance(own({**row, side: [message]}), Candidate)


def test_a_part_that_is_not_text_is_refused_with_file_and_line(tmp_path: Path) -> None:
    image = {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
    rows = [own_row(ranks=[0, 1, 2]), {"prompt": [USER], "chosen": [image], "rejected": [RED]}]
    with pytest.raises(BadData, match=r"a.jsonl:2: 'chosen\[0\]': content\[0\] of a message is of type image_url"):
        load_comparisons(write_lines(tmp_path / "a.jsonl", rows))
