"""Conversations of other tools: LLaMA-Factory's ShareGPT, ms-swift, UltraInteract, Nectar."""

from pathlib import Path
from typing import Any

import pytest

from prefrank.data.conversations import ENDS_IN_REPLY
from prefrank.data.fields import as_turns
from prefrank.data.own import NOT_TEXT, TOOLS
from prefrank.errors import BadData
from prefrank.types import Turn
from tests.data.files import load_rows as load
from tests.data.files import stated, user
from tests.data.files import the_comparison as only

ASKED = (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "A colour?"))


def shared(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def sharegpt(**fields: Any) -> dict[str, Any]:
    row = {
        "conversations": shared("Hi", "Hello.", "A colour?"),
        "chosen": {"from": "gpt", "value": "Blue."},
        "rejected": {"from": "gpt", "value": "Tuesday."},
    }
    return {**row, **fields}


def test_a_sharegpt_pair_has_its_conversation_and_its_system_turn_as_prompt(tmp_path: Path) -> None:
    comparison = only(tmp_path, sharegpt(system="Be terse."))
    assert comparison.prompt == (Turn("system", "Be terse."), *ASKED)
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
    assert only(tmp_path, sharegpt(system="")).prompt == ASKED
    opened = [{"from": "system", "value": "Be terse."}, *shared("Hi", "Hello.", "A colour?")]
    assert only(tmp_path, sharegpt(conversations=opened)).prompt == (Turn("system", "Be terse."), *ASKED)


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("function_call", "assistant"),
        ("tool_call", "assistant"),
        ("tool_response", "tool"),
        ("observation", "tool"),
        ("tool", "tool"),
        ("system", "system"),
    ],
)
def test_every_speaker_of_sharegpt_has_a_role(speaker: str, role: Any) -> None:
    assert as_turns([{"from": speaker, "value": "x"}], "conversations") == (Turn(role, "x"),)
    assert as_turns([{"role": speaker, "content": "x"}], "messages") == (Turn(role, "x"),)


def test_an_unknown_speaker_is_refused_by_name(tmp_path: Path) -> None:
    row = sharegpt(conversations=[{"from": "narrator", "value": "Once."}])
    with pytest.raises(BadData, match=r"mine\.jsonl:1: 'conversations\[0\]' .*from 'narrator'"):
        load(tmp_path, row)


def test_a_conversation_that_does_not_end_in_a_question_or_is_not_text_alone_is_dropped(tmp_path: Path) -> None:
    answered = sharegpt(conversations=shared("Hi", "Hello."))
    rows = [answered, sharegpt(images=["cat.png"]), sharegpt(tools='[{"name": "clock"}]'), sharegpt(tools="[]")]
    report = load(tmp_path, *rows).report
    assert (report.kept, report.dropped) == (1, {ENDS_IN_REPLY: 1, NOT_TEXT: 1, TOOLS: 1})


def test_the_same_layout_in_openai_messages_is_read(tmp_path: Path) -> None:
    row = {
        "messages": messages("Hi", "Hello.", "A colour?"),
        "chosen": {"role": "assistant", "content": "Blue."},
        "rejected": {"role": "assistant", "content": "Tuesday."},
    }
    assert only(tmp_path, row).prompt == ASKED
    assert stated(only(tmp_path, {**row, "chosen": "Blue.", "rejected": "Red."})) == {("Blue.", "Red.", 1.0)}
    with pytest.raises(BadData, match="'chosen' is a user message; wanted the assistant's"):
        load(tmp_path, {**row, "chosen": {"role": "user", "content": "Blue."}})


def test_one_message_may_stand_in_a_list_and_more_or_none_is_an_error(tmp_path: Path) -> None:
    sides = {name: [sharegpt()[name]] for name in ("chosen", "rejected")}
    assert stated(only(tmp_path, sharegpt(**sides))) == {("Blue.", "Tuesday.", 1.0)}
    for other in (None, [], shared("Hi", "Hello.")):
        with pytest.raises(BadData, match=r"'rejected' holds .*; wanted one message or a text"):
            load(tmp_path, sharegpt(rejected=other))


def test_messages_beside_a_prompt_and_two_lists_are_not_read_as_the_prompt(tmp_path: Path) -> None:
    row = {
        "prompt": "A colour?", "messages": messages("A colour?", "Blue."),
        "chosen": messages("A colour?", "Blue."), "rejected": messages("A colour?", "Red."),
    }  # fmt: skip
    comparison = only(tmp_path, row)
    assert (comparison.prompt, stated(comparison)) == (user("A colour?"), {("Blue.", "Red.", 1.0)})


def test_ultrainteract_goes_on_after_its_trajectory(tmp_path: Path) -> None:
    row = {
        "task": "Coding", "dataset": "mine", "id": "n3", "parent_id": "n1", "chosen": "Blue.", "rejected": "Tuesday.",
        "trajectory": [
            {"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello."},
            {"from": "user", "value": "A colour?"},
        ],
    }  # fmt: skip
    comparison = only(tmp_path, row)
    assert (comparison.prompt, comparison.id) == (ASKED, "n3")
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}


def test_ms_swift_messages_end_in_the_better_reply(tmp_path: Path) -> None:
    chosen = [{"role": "system", "content": "Be terse."}, *messages("Hi", "Hello.", "A colour?", "Blue.")]
    comparison = only(tmp_path, {"messages": chosen, "rejected_response": "Tuesday."})
    assert comparison.prompt == (Turn("system", "Be terse."), *ASKED)
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}


def test_ms_swift_rejected_messages_are_a_whole_conversation_or_its_reply(tmp_path: Path) -> None:
    row = {"messages": messages("A colour?", "Blue."), "rejected_messages": messages("A colour?", "Tuesday.")}
    reply = {**row, "rejected_messages": messages("A colour?", "Red.")[1:]}
    other = {**row, "rejected_messages": messages("A day?", "Tuesday.")}
    open_ended = {**row, "messages": messages("A colour?")}
    loaded = load(tmp_path, row, reply, other, open_ended)
    assert [comparison.prompt for comparison in loaded.comparisons] == [user("A colour?")] * 2
    assert [stated(comparison) for comparison in loaded.comparisons] == [
        {("Blue.", "Tuesday.", 1.0)},
        {("Blue.", "Red.", 1.0)},
    ]
    assert loaded.report.dropped == {"prompts differ": 1, "the completion is not one assistant message": 1}


def test_a_tool_call_is_no_reply(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}]}
    row = {"messages": [*messages("What time?"), call], "rejected_response": "Noon."}
    with pytest.raises(BadData, match="the completion is a tool call: 1"):
        load(tmp_path, row)


def test_ms_swift_exchanges_end_in_the_better_reply(tmp_path: Path) -> None:
    exchanges = [{"human": "Hi", "assistant": "Hello."}, {"human": "A colour?", "assistant": "Blue."}]
    comparison = only(tmp_path, {"system": "Be terse.", "conversation": exchanges, "rejected_response": "Tuesday."})
    assert comparison.prompt == (Turn("system", "Be terse."), *ASKED)
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}


def test_ms_swift_query_and_response_have_a_history(tmp_path: Path) -> None:
    row = {"query": "A colour?", "response": "Blue.", "rejected_response": "Tuesday.", "history": [["Hi", "Hello."]]}
    assert only(tmp_path, {**row, "system": "Be terse."}).prompt == (Turn("system", "Be terse."), *ASKED)
    with pytest.raises(BadData, match=r"'history\[0\]' holds 1 texts; wanted \[question, answer\]"):
        load(tmp_path, {**row, "history": [["Hi"]]})


def test_nectar_is_a_transcript_and_ranked_answers(tmp_path: Path) -> None:
    answers = [
        {"answer": "Tuesday.", "model": "a", "rank": 3.0},
        {"answer": "Blue.", "model": "b", "rank": 1.0},
        {"answer": "Red.", "model": "c", "rank": 2.0},
    ]
    row = {
        "prompt": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A colour?\n\nAssistant: ", "answers": answers,
        "turns": 2, "num_responses": 3, "source": ["mine"], "good_natured": True,
    }  # fmt: skip
    comparison = only(tmp_path, row)
    assert comparison.prompt == ASKED
    assert stated(comparison) == {("Blue.", "Red.", 1.0), ("Blue.", "Tuesday.", 1.0), ("Red.", "Tuesday.", 1.0)}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": shared("A colour?", "Blue."), "rejected_response": "Tuesday."},
        {"instruction": "A colour?", "input": "", "output": "Blue.", "rejected_response": "Tuesday."},
    ],
)
def test_swift_names_the_worse_reply_beside_sharegpt_and_alpaca_too(tmp_path: Path, row: dict[str, Any]) -> None:
    comparison = only(tmp_path, {**row, "system": "Be brief."})
    assert comparison.prompt == (Turn("system", "Be brief."), Turn("user", "A colour?"))
    assert stated(comparison) == {("Blue.", "Tuesday.", 1.0)}
