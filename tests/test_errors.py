"""Errors are one line, whatever stands in the names and values they tell of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.errors import BadData, PrefrankError, printable, short, suggest


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_what_is_printable_obeys_nothing_and_is_one_line(text: str) -> None:
    shown = printable(text)
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J", "a\\x1b[2J"),
        ("two\nlines", "two\\nlines"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("Grüße, 你好 👋🏽", "Grüße, 你好 👋🏽"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(BadData(text)) == shown


def test_an_error_keeps_what_is_no_text() -> None:
    assert PrefrankError(1, "a\tb").args == (1, "a\\tb")


@pytest.mark.parametrize("text", ["x" * 5_000, "/".join(["folder"] * 900), "name " * 900, "\x00" * 5_000])
def test_a_message_of_any_names_is_short_and_keeps_both_ends(text: str) -> None:
    message = str(BadData(f"cannot read {text}; wanted a file"))
    assert message.startswith("cannot read ")
    assert message.endswith("; wanted a file")
    assert "..." in message
    assert len(message) <= 2_000


def test_a_message_of_many_words_stays_whole() -> None:
    message = "; ".join(f"fact{number}: what is wanted of it" for number in range(50))
    assert str(BadData(message)) == message


@pytest.mark.parametrize("known", [[f"name{number}" for number in range(5_000)], ["x" * 5_000]])
def test_known_names_are_listed_as_far_as_a_line_goes(known: list[str]) -> None:
    assert len(suggest("no" * 5_000, known)) < 600


def test_values_that_cannot_be_written_out_are_named_by_their_type() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert short(deep) == "of type list"
    assert short(10**10_000) == "of type int"
