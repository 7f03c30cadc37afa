"""What a prompt and a reply become."""

import pytest

from prefrank.types import Turn
from prefrank.wire.inputs import (
    LABELLED,
    Messages,
    OneText,
    OpenedText,
    TwoTexts,
    Writing,
    description_of,
    inputs_of,
    labelled,
    query_of,
)

CALL = '{"tool_calls": [{"id": "1", "function": {"name": "add", "arguments": {"a": 2}}}]}'
TALK = (
    Turn("developer", "Be brief."), Turn("user", "2 + 2?"), Turn("assistant", "", CALL),
    Turn("tool", "4", '{"tool_call_id": "1"}'),
)  # fmt: skip
PAIR = ((Turn("system", "Be brief."), Turn("user", "Why?")), "So.")
TEMPLATE = Writing(
    text=lambda prompt, reply: f"<s>{prompt[-1].text}|{reply}",
    opening=lambda prompt: f"<s>{prompt[-1].text}|",
    description="one text by a template",
    bos="<s>",
)


def test_one_text_loses_neither_role_nor_tool_call() -> None:
    assert query_of(TALK) == (
        f'Developer: Be brief.\n\nUser: 2 + 2?\n\nAssistant: {CALL}\n\nTool: 4\n{{"tool_call_id": "1"}}'
    )
    assert query_of((Turn("user", "Hi", '{"name": "Ann"}'),)) == 'Hi\n{"name": "Ann"}'


def test_the_last_user_turn_is_the_query_where_there_is_one() -> None:
    assert query_of(TALK, turns="last") == "2 + 2?"
    assert query_of((Turn("system", "Be brief."),), turns="last") == "Be brief."
    assert query_of((Turn("system", "Be brief."),)) == labelled((Turn("system", "Be brief."),))


@pytest.mark.parametrize(
    ("takes", "writing", "adds_bos", "wanted", "described"),
    [
        (TwoTexts, LABELLED, False, TwoTexts("System: Be brief.\n\nUser: Why?", "So."), "as two texts"),
        (Messages, TEMPLATE, False, Messages((*PAIR[0], Turn("assistant", "So."))), "applies its chat template"),
        (OneText, TEMPLATE, False, OneText("<s>Why?|So."), "by a template"),
        (OneText, TEMPLATE, True, OneText("Why?|So."), "by a template"),
        (OpenedText, TEMPLATE, False, OpenedText("<s>Why?|So.", "<s>Why?|"), "`prompts` holds all but the reply"),
    ],
)
def test_a_pair_becomes_what_a_server_takes(
    takes: type, writing: Writing, adds_bos: bool, wanted: object, described: str
) -> None:
    assert inputs_of([PAIR], takes, turns="all", writing=writing, adds_bos=adds_bos) == [wanted]
    assert described in description_of(takes, turns="all", writing=writing)


def test_the_opening_is_written_only_for_servers_that_take_it() -> None:
    """A template may write whole conversations and fail on open ones."""

    def refuse(prompt: object) -> str:
        raise AssertionError

    writing = Writing(TEMPLATE.text, refuse, "")
    assert inputs_of([PAIR], OneText, turns="all", writing=writing, adds_bos=False) == [OneText("<s>Why?|So.")]
