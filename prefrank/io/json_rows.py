"""Rows of JSON lines or of one JSON array, each with its own text, and JSON out that every program can read.

A row's text is kept, so that a job can give it back with columns added and all else as it was written: 1.0 stays 1.0,
integers of any size and the order of keys stay.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, short
from prefrank.io.json_array import UNUSUAL, array_rows, unusual
from prefrank.io.json_files import unique_keys
from prefrank.io.packed import STREAM, RowBound, decoded, joined, pieces, shown

BadRow = Callable[[BadData], None] | None
"""Called with the error of a row that cannot be read, which is then skipped; None raises it."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|NaN|-?Infinity')


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys(BadData, "; keep one of them"))
"""JSON as rows have it: Python's own, with NaN and Infinity, but no key twice."""


def json_rows(path: Path, bad_row: BadRow = None) -> Iterator[tuple[int, str, Any]]:
    """Each row as (line, its text, its value); of an array, the line is the row's number.

    Raises:
        BadData: an empty or damaged file, or text that is not JSON; with file and line.
        NotFound: no such file.
    """
    name, bound = shown(path), RowBound(path, lambda: _again(path))
    with closing(pieces(path, bound)) as opened:  # also where a row is refused: the file is not left to the collector
        parts: Iterator[bytes] = opened
        if _may_be_array(path):
            blank, first = _first_filled(opened)
            parts = chain(blank, [first] if first else [], opened)
            if _opens_array(first):
                yield from array_rows(name, parts, DECODER, bound.check)
                return
        line = 0
        for line, content in enumerate(joined(path, parts, bound), start=1):
            if not _without_mark(content).strip(_BLANK):
                continue
            try:
                text = _decoded(content, f"{name}:{line}")
                value = _value(text, f"{name}:{line}")
            except BadData as error:
                pass_over(error, bad_row)
            else:
                yield line, text, value
    if line == 0:
        raise BadData(f"{name}: the file is empty; wanted one JSON object per line")


def _again(path: Path) -> Iterator[object]:
    """The file's elements, or its pieces that end lines, without a bound of their number."""
    with closing(pieces(path)) as opened:
        blank, first = _first_filled(opened)
        parts = chain(blank, [first] if first else [], opened)
        if _may_be_array(path) and _opens_array(first):
            yield from array_rows(shown(path), parts, DECODER)
        else:
            yield from (piece for piece in parts if piece.endswith(b"\n"))


def _first_filled(parts: Iterator[bytes]) -> tuple[list[bytes], bytes]:
    """The blank pieces before the first that holds something, and that piece."""
    blank: list[bytes] = []
    for piece in parts:
        if _without_mark(piece).strip(_BLANK):
            return blank, piece
        blank.append(piece)
    return blank, b""


def pass_over(error: BadData, bad_row: BadRow) -> None:
    if bad_row is None:
        raise error from None
    bad_row(error)


def is_json_array(path: Path) -> bool:
    """Whether a `.json` file is one array; it may as well hold JSON lines."""
    if not _may_be_array(path):
        return False
    return _opens_array(_first_filled(pieces(path))[1])


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
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise BadData(f"{where}: not valid JSON ({what} at column {error.colno}); wanted one object per line") from None
    except UNUSUAL as error:
        raise unusual(where, error) from None


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
    return _CONSTANT.sub(lambda match: match[0] if match[0].startswith('"') else "null", text)


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
