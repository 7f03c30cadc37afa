"""Where the sentences of a text begin and end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.wire.sentences import MOST, sentences


@given(st.text(alphabet="ab .!?\n。", max_size=80))
def test_the_sentences_are_the_whole_text_in_order(text: str) -> None:
    parts = sentences(text)
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(start < end for start, end in parts)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hi! How are you?", ["Hi! ", "How are you?"]),
        ('He said "no." Then he left.', ['He said "no." ', "Then he left."]),
        ("First line\n- a list\n- of two\n", ["First line\n", "- a list\n", "- of two\n"]),
        ("It is 3.14 exactly.", ["It is 3.14 exactly."]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("\n\nLate start. End", ["\n\nLate start. ", "End"]),
        ("", []),
    ],
)
def test_sentences_end_where_people_would_say(text: str, wanted: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == wanted


def test_neighbors_are_taken_together_in_a_long_text() -> None:
    text = "One. " * (3 * MOST)
    parts = sentences(text)
    assert len(parts) == MOST
    assert text[slice(*parts[0])] == "One. One. One. "


def test_a_text_of_nothing_but_marks_takes_no_time() -> None:
    for text in ("!" * 200_000, "." * 100_000 + "'" * 100_000, "。" * 200_000, "!\n" * 100_000, "\n " * 100_000):
        began = time.monotonic()
        parts = sentences(text)
        assert time.monotonic() - began < 2.0
        assert "".join(text[first:end] for first, end in parts) == text
