"""Arrays read element by element give what reading them whole gives, errors included."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefrank.errors import BadData
from prefrank.io import json_array
from prefrank.io.json_array import array_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ANYWHERE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(content: bytes, size: int) -> list[Any]:
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return [value for _, _, value in array_rows("x", parts, json.JSONDecoder())]


@given(
    st.lists(VALUES, min_size=1, max_size=5),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
)
@ANYWHERE
def test_the_rows_are_those_of_the_whole_array_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, values: list[Any], size: int, indent: int | None, ascii: bool, marked: bool
) -> None:
    monkeypatch.setattr(json_array, "_STEP", size)
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    content = ("\ufeff" * marked + f" \n{text}\n ").encode("utf-8", "surrogatepass")
    try:
        content.decode()
    except UnicodeDecodeError:
        with pytest.raises(BadData, match="not UTF-8"):
            rows(content, size)
    else:
        assert rows(content, size) == values


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "the file holds an empty list"),
        (b'[{"a": 1},\n {"a": nul}]', r"Expecting value at line 2 column 8"),
        (b'[{"a": 1},\n {"a": 1} {"a": 2}]', r"Expecting ',' delimiter at line 2 column 11"),
        (b'[{"a": 1}]\n\n  x', r"Extra data at line 3 column 3"),
        (b'[{"a": 1}, {"b', r"Unterminated string starting at line 1 column 13"),
        (b'[{"a": 1}, ', r"Expecting value at line 1 column"),
        (b'[{"a": 1}', r"Expecting ',' delimiter at line 1 column 10"),
        (b"[" * 100_000, r"x:1: the JSON is nested too deeply"),
        (b"[" + b"1" * 5_000 + b"]", r"x:1: a number has too many digits"),
        (b'[{"a": "\xff"}]', r"not UTF-8"),
    ],
)
def test_what_is_no_array_is_said_with_its_place(
    monkeypatch: pytest.MonkeyPatch, size: int, content: bytes, message: str
) -> None:
    monkeypatch.setattr(json_array, "_STEP", size)
    with pytest.raises(BadData, match=message):
        rows(content, size)
