"""Rows of JSON lines or of one JSON array, each with its own text, and JSON out that every program can read.

A row's text is kept, so that a job can give it back with columns added and all else as it was written: 1.0 stays 1.0,
integers of any size and the order of keys stay.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, short
from prefrank.io.packed import STREAM, decoded, lines, shown

BadRow = Callable[[BadData], None] | None
"""Hears of a row that cannot be read, which is then passed over; None raises the error."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_END = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|NaN|-?Infinity')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadData(f"the key {short(twice)} stands twice in one object; keep one of them")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def json_rows(path: Path, bad_row: BadRow = None) -> Iterator[tuple[int, str, Any]]:
    """Each row as (line, its text, its value); of an array, which is held whole, the line is the row's number.

    Raises:
        BadData: an empty or damaged file, or text that is not JSON; with file and line.
        NotFound: no such file.
    """
    name, numbered = shown(path), enumerate(lines(path), start=1)
    line, first = 0, True
    for line, content in numbered:
        if not _without_mark(content).strip(_BLANK):
            continue
        if first and _may_be_array(path) and _opens_array(content):
            yield from _elements(name, b"".join(chain([content], (more for _, more in numbered))))
            return
        first = False
        try:
            text = _decoded(content, f"{name}:{line}")
            value = _value(text, f"{name}:{line}")
        except BadData as error:
            pass_over(error, bad_row)
        else:
            yield line, text, value
    if line == 0:
        raise BadData(f"{name}: the file is empty; wanted one JSON object per line")


def pass_over(error: BadData, bad_row: BadRow) -> None:
    if bad_row is None:
        raise error from None
    bad_row(error)


def is_json_array(path: Path) -> bool:
    """Whether a `.json` file is one array; it may as well hold JSON lines."""
    if not _may_be_array(path):
        return False
    return next((_opens_array(line) for line in lines(path) if _without_mark(line).strip(_BLANK)), False)


def _may_be_array(path: Path) -> bool:
    return path == STREAM or ".json" in path.suffixes


def _without_mark(content: bytes) -> bytes:
    return content.removeprefix(_BOM)


def _opens_array(content: bytes) -> bool:
    return _without_mark(content).lstrip(_BLANK)[:1] == b"["


def _decoded(content: bytes, where: str) -> str:
    """UTF-8 text without the mark that some programs put at its start, nor white space around."""
    return decoded(content, where).strip(" \t\r\n")


def _value(text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise BadData(f"{where}: not valid JSON ({what} at column {error.colno}); wanted one object per line") from None
    except (RecursionError, ValueError) as error:
        raise _unusual(where, error) from None


def _unusual(where: str, error: Exception) -> BadData:
    if isinstance(error, BadData):
        return BadData(f"{where}: {error}")
    if isinstance(error, RecursionError):
        return BadData(f"{where}: the JSON is nested too deeply; wanted one object per line")
    return BadData(f"{where}: a number has too many digits to be read; write it as a string")


def _elements(name: str, content: bytes) -> Iterator[tuple[int, str, Any]]:
    text = _decoded(content, name)
    at, row = _after_space(text, 1), 0
    if text[at : at + 1] == "]":
        raise BadData(f"{name}: the file holds an empty list; wanted at least one row")
    while True:
        row += 1
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _bad_array(name, text, error.msg, error.pos) from None
        except (RecursionError, ValueError) as error:
            raise _unusual(f"{name}:{row}", error) from None
        yield row, _LINE_END.sub(" ", text[at:end]), value  # a line end inside JSON is never part of a string
        at = _after_space(text, end)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise _bad_array(name, text, "Expecting ',' delimiter", at)
        at = _after_space(text, at + 1)
    if at + 1 < len(text):
        raise _bad_array(name, text, "Extra data", _after_space(text, at + 1))


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _bad_array(name: str, text: str, what: str, at: int) -> BadData:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    what = what.removesuffix(" at")
    return BadData(f"{name}: not valid JSON ({what} at line {line} column {column}); wanted one list of objects")


def with_columns(text: str, added: Mapping[str, Any]) -> str:
    """The text of an object with columns added at its end; what it holds already stays as it was written.

    >>> with_columns('{"x": 1.0}', {"score": 2.5})
    '{"x": 1.0, "score": 2.5}'
    """
    start = text[:-1].rstrip()
    return start + ("" if start == "{" else ", ") + json_of(added)[1:]


def json_of(value: Any) -> str:
    """A plain value as JSON: NaN is null, since JSON has no number that is missing; bytes are base64; a lone surrogate
    is its escape.

    Raises:
        BadData: an infinite number, with the name of its column.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_base64)
    except ValueError:
        check_finite(value)
        value = _without_nan(value)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_base64)
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_base64)
    return text


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def valid_json(text: str, value: Any) -> str:
    """A row's text with null for NaN, which Python writes and JSON does not have.

    Raises:
        BadData: Infinity, with the name of its column.
    """
    if "NaN" not in text and "Infinity" not in text:
        return text
    check_finite(value)
    return _CONSTANT.sub(lambda found: found[0] if found[0].startswith('"') else "null", text)


def check_finite(value: Any, name: str = "") -> None:
    """Refuse an infinite number, wherever in a row it stands.

    Raises:
        BadData: with the dotted name of the column.
    """
    if isinstance(value, float) and math.isinf(value):
        raise BadData(f"{name!r} holds {short(value)}, which JSON does not have; replace it, or read and write Parquet")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_finite(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            check_finite(inner, f"{name}[{number}]")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, list) else value
