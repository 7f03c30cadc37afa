from collections.abc import Callable

import pytest

from prefrank import Comparison, Preference, PrefrankError, Turn
from prefrank.errors import suggest
from prefrank.types import Ratings, as_prompt, as_turn

PROMPT = (Turn("user", "hello"),)


def test_a_string_is_one_user_turn() -> None:
    assert as_prompt("hello") == PROMPT
    assert as_prompt(Turn("user", "hello")) == PROMPT
    assert as_prompt([Turn("user", "hello")]) == PROMPT


def test_half_a_chance_is_a_tie() -> None:
    assert Preference(0, 1, 0.5).tie
    assert not Preference(0, 1).tie


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1), "names reply 1 as both winner and loser"),
        ((0, 1, 1.5), "probability is 1.5; wanted 0 to 1"),
        ((0, 1, float("nan")), "probability is nan"),
        ((0, 1, 1.0, 0.0), "weight is 0.0; wanted a finite number above 0"),
        ((0, 1, 1.0, 1.0, float("inf")), "margin is inf"),
        ((0, 1, 1.0, 1.0, 0.0, -1), "strength is -1 at probability 1.0; wanted 0 for a tie"),
        ((0, 1, 1.0, 1.0, 0.0, 0), "strength is 0 at probability 1.0; wanted 0 for a tie"),
        ((0, 1, 0.5, 1.0, 0.0, 2), "strength is 2 at probability 0.5; wanted 0 for a tie"),
    ],
)
def test_impossible_preferences_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preference(*arguments)


@pytest.mark.parametrize(
    ("prompt", "replies", "preferences", "message"),
    [
        ((), ("a", "b"), (Preference(0, 1),), "has no prompt turn"),
        (PROMPT, ("a",), (Preference(0, 1),), "has 1 replies; wanted at least 2"),
        (PROMPT, ("a", "a"), (Preference(0, 1),), "has equal replies"),
        (PROMPT, ("a", "b"), (), "has no preference"),
        (PROMPT, ("a", "b"), (Preference(0, 2),), "prefers reply 0 to 2 but has replies 0 to 1"),
    ],
)
def test_impossible_comparisons_are_refused(prompt: tuple, replies: tuple, preferences: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison(prompt, replies, preferences, source="test", id="1")


def test_impossible_ratings_are_refused() -> None:
    with pytest.raises(ValueError, match="a rating of honesty is nan; wanted a finite number or None"):
        Ratings((1.0, float("nan")), "honesty")
    with pytest.raises(ValueError, match="comparison 1 has 1 ratings of overall for 2 replies; wanted as many"):
        Comparison(PROMPT, ("a", "b"), (Preference(0, 1),), source="test", id="1", ratings=(Ratings((1.0,)),))


def test_a_misspelt_name_gets_a_suggestion() -> None:
    assert suggest("webgtp", ["webgpt", "hh"]) == "; did you mean 'webgpt'?"
    assert suggest("zzz", ["webgpt", "hh"]) == "; known: hh, webgpt"


def test_messages_are_turns() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert as_prompt({"role": "user", "content": "hello"}) == PROMPT
    assert as_prompt([{"role": "system", "content": "Be kind."}, Turn("user", "hello")]) == (
        Turn("system", "Be kind."),
        *PROMPT,
    )
    assert as_turn({"role": "user", "content": parts}) == Turn("user", "Hello")


def test_what_a_template_may_read_of_a_message_comes_back_as_it_was() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sum", "arguments": {"b": 2}}}]}
    assert as_turn(call).message() == {**call, "content": ""}
    assert as_turn({"role": "tool", "content": "4", "tool_call_id": "7", "score": 1}).message() == {
        "role": "tool", "content": "4", "tool_call_id": "7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "human", "content": "hi"}, "the role 'human'; wanted one of system, user"),
        ({"from": "human", "value": "hi"}, "the keys from, value; wanted role and content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, r"content\[0\] .* of type image_url"),
        ({"role": "user", "content": 3}, "content is 3; wanted a string"),
        ({"role": "user"}, "a message has no content"),
        ("hi", "a message is 'hi'; wanted an object"),
    ],
)
def test_messages_that_are_no_text_are_refused_by_name(message: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        as_turn(message)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Preference(1, 1),
        lambda: Ratings((float("inf"),)),
        lambda: Comparison((), ("a", "b"), (Preference(0, 1),), source="test", id="1"),
        lambda: as_turn({"role": "user", "content": [{"type": "image"}]}),
        lambda: as_prompt([]),
    ],
)
def test_every_refusal_is_a_prefrank_error(make: Callable[[], object]) -> None:
    with pytest.raises(PrefrankError):
        make()
