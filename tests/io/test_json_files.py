"""JSON of others: one value, or one line that names the file and the key."""

import os
from pathlib import Path

import pytest

from prefrank.errors import BadData, BadModel, NotFound
from prefrank.io.json_files import Fields, parse_json, read_object
from prefrank.io.plain_files import read_text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting property name enclosed in double quotes at line 1 column 2"),
        (b"", "Expecting value at line 1 column 1"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice in one object"),
        (b'{"a": {"b": NaN}}', "it holds NaN"),
        (b"[-Infinity]", "it holds -Infinity"),
        (b"[1e999]", "the number '1e999' is too large"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
        (b"1" * 5000, "a number has too many digits"),
        (b'{"a": "\xff"}', "it is not UTF-8, invalid start byte at byte 7"),
    ],
)
def test_what_is_no_json_is_one_line(content: bytes, why: str) -> None:
    with pytest.raises(BadData) as error:
        parse_json(content, "some.json", BadData)
    assert str(error.value) == f"some.json cannot be read as JSON ({why}); copy or download it again"


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "a list"), ("null", "null"), ("1.5", "a number"), ("true", "true or")]
)
def test_what_is_no_object_is_one_line(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadModel, match=f"a.json holds {kind}.*; wanted an object"):
        read_object(tmp_path / "a.json")


def test_only_plain_files_of_a_size_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a FIFO"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(BadModel, match=f"{path} is {kind}; wanted a plain file"):
            read_object(path)
    for path in (tmp_path / "absent", tmp_path / "pipe" / "inside"):
        with pytest.raises(NotFound, match="there is no file"):
            read_object(path)
    with pytest.raises(BadModel, match="cannot be read: embedded null byte"):
        read_object(tmp_path / "a\0b")
    monkeypatch.setenv("PREFRANK_MAX_JSON_BYTES", "10")
    (tmp_path / "a.json").write_text("{" + " " * 20 + "}")
    with pytest.raises(BadModel, match=r"a.json has 22 bytes, more than 10 bytes, which PREFRANK_MAX_JSON_BYTES may"):
        read_object(tmp_path / "a.json")


def test_a_text_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"caf\xe9")
    with pytest.raises(BadData, match=r"a is not UTF-8 text .unexpected end of data at byte 3.; save it as UTF-8"):
        read_text(tmp_path / "a", BadData)


RAW = {
    "name": "x",
    "yes": True,
    "count": 3,
    "rate": 0.5,
    "none": None,
    "inner": {"deep": "no", "list": [{"x": 1}]},
    "names": ["a", 2],
    "huge": 10**400,
}
FIELDS = Fields(RAW, "f.json", error=BadData)


def test_values_come_by_their_type() -> None:
    assert FIELDS.text("name") == "x"
    assert FIELDS.flag("yes") is True
    assert FIELDS.integer("count", least=1, most=3) == 3
    assert FIELDS.number("rate") == 0.5
    assert FIELDS.number("count") == 3.0
    assert FIELDS.text("none", "default") == FIELDS.text("absent", "default") == "default"
    assert FIELDS.object("absent", None) is None
    assert FIELDS.object("inner").objects("list")[0].integer("x") == 1
    assert dict(FIELDS) == RAW


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: FIELDS.text("count"), "count is 3; wanted a string"),
        (lambda: FIELDS.text("absent"), "absent is missing; wanted a string"),
        (lambda: FIELDS.text("none"), "none is null; wanted a string"),
        (lambda: FIELDS.integer("yes"), "yes is True; wanted a whole number from 0 to 9,007,199,254,740,992"),
        (lambda: FIELDS.integer("rate", 7), "rate is 0.5; wanted a whole number from 0 to 9,007,199,254,740,992"),
        (lambda: FIELDS.integer("count", most=2), "count is 3; wanted a whole number from 0 to 2"),
        (lambda: FIELDS.number("huge"), "huge is 1000000000000000000000000000000000000...; wanted a number"),
        (lambda: FIELDS.number("rate", least=1.0), "rate is 0.5; wanted a finite number from 1 to inf"),
        (lambda: FIELDS.flag("count"), "count is 3; wanted true or false"),
        (lambda: FIELDS.object("inner").flag("deep"), "inner.deep is 'no'; wanted true or false"),
        (lambda: FIELDS.object("inner").objects("list")[0].text("x"), "inner.list[0].x is 1; wanted a string"),
        (lambda: FIELDS.texts("names"), "names is ['a', 2]; wanted a list of strings"),
        (lambda: FIELDS.objects("names"), "names is ['a', 2]; wanted a list of objects"),
    ],
)
def test_a_value_of_another_type_names_file_and_key(ask, said: str) -> None:
    with pytest.raises(BadData) as error:
        ask()
    assert str(error.value) == f"f.json: {said}"
