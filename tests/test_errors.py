"""Errors are one line, whatever stands in the names and values they tell of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.errors import BadData, PrefrankError, printable


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


def test_an_error_leaves_out_the_middle_of_what_is_too_long() -> None:
    said = str(BadData(f"{'x' * 100_000} is no number; wanted one"))
    assert len(said) < 2000
    assert said.startswith("xxx")
    assert said.endswith("is no number; wanted one")
    assert "[… 98,125 of 100,025 characters …]" in said
    assert str(BadData(said)) == said
