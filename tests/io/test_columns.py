"""Columns by name: dotted names, names that have dots of their own, and what a mapping renames."""

import pytest

from prefrank.errors import BadData, BadInput
from prefrank.io.columns import field, mapped, parse_columns, with_values


def test_a_dotted_name_reaches_into_objects_and_a_column_of_that_very_name_wins() -> None:
    assert field({"out": {"text": "nested"}}, "out.text") == "nested"
    assert field({"out": {"text": "nested"}, "out.text": "flat"}, "out.text") == "flat"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("promt", "no column 'promt'; did you mean 'prompt'"),
        ("out.txet", "no column 'out.txet'; did you mean 'text'"),
        ("prompt.text", "'prompt.text' wants an object where 'Hi' is"),
    ],
)
def test_a_column_that_is_not_there_is_said_with_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        field({"prompt": "Hi", "out": {"text": "Hello"}}, name)


def test_a_mapping_renames_what_it_takes_and_keeps_all_else() -> None:
    row = {"question": "Hi", "out": {"good": "Hello", "bad": "What?"}, "id": 7}
    columns = {"prompt": "question", "chosen": "out.good", "rejected": "out.bad"}
    assert mapped(row, columns) == {
        "out": row["out"], "id": 7, "prompt": "Hi", "chosen": "Hello", "rejected": "What?",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=question", "prompt=a,prompt=b", ""])
def test_columns_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="columns"):
        parse_columns(text)


def test_values_put_over_a_row_leave_the_others_unread() -> None:
    row = {"prompt": "Hi", "id": 7}
    assert with_values(row, {"prompt": "Ho", "more": 1}) == {"prompt": "Ho", "id": 7, "more": 1}
    assert with_values(row, {}).get("absent") is None
