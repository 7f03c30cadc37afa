"""Values that a file holds as text where readers want more: the cells of CSV files, and messages written as JSON.

CSV has no types, so a column that every reader wants as a number or a list is read as one. All else stays text: a reply
`[1, 2]` is a reply. Messages as JSON are messages in any file, since nobody is asked to judge such texts.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from prefrank.data.fields import FileRow, short
from prefrank.errors import BadData
from prefrank.io.columns import with_values
from prefrank.io.json_array import UNUSUAL, unusual
from prefrank.io.json_rows import DECODER

_SCORES = ("score", "created_at_utc")
_NUMBERS = frozenset(
    {"probability", "weight", "margin", "strength", "preference_strength", "overall_preference"}
    | {"rank", "turn", "evaluation_order", "helpfulness", "correctness", "coherence", "complexity", "verbosity"}
    | {f"score_{side}" for side in "01"}
    | set(chain.from_iterable((f"{name}_A", f"{name}_B") for name in _SCORES))
)
"""Columns that hold numbers in every format that has them."""
_FLAGS = frozenset({"deleted", "synthetic", "review_result"})
"""Columns that hold true, false or nothing; a text would be taken for true."""
_TRUTH = {"true": True, "false": False}
_LIST_COLUMNS = """
replies ranks ratings rating preferences preference messages rejected_messages conversations conversation conversation_a
conversation_b full_conversation trajectory history generations answers responses annotations completions info
summaries summary neg_replies passages endings images audios videos
"""
_LISTS = frozenset(_LIST_COLUMNS.split())
"""Columns that hold lists or objects in the formats that read more than text in them."""
_TEXTS_OR_MESSAGES = ("prompt", "chosen", "rejected", "completion", "context")
_PRINTED = re.compile(r"\s*\[?\s*\{'(?:role|content|from|value)': ?['\"]")
"""Messages as Python prints them."""


def with_types(row: FileRow) -> FileRow:
    """A row of a CSV file with numbers, lists and objects where its columns hold them; an empty number is none."""
    values: dict[str, Any] = {}
    for name, cell in row.items():
        if name in _NUMBERS:
            values[name] = _number(cell)
        elif name in _LISTS and cell.lstrip()[:1] in ("[", "{"):
            values[name] = _strictly(cell, name)
        elif name in _FLAGS:
            values[name] = _TRUTH.get(cell.lower(), cell) if cell else None
        elif name == "label":  # also a number, or a word
            values[name] = _TRUTH.get(cell.lower(), cell)
    return with_values(row, values) if values else row


def with_objects(row: FileRow, names: Iterable[str]) -> FileRow:
    """A row of a CSV file with objects where dotted names of columns reach into their JSON."""
    parents = {name.partition(".")[0] for name in names if name not in row}
    objects = {name: _strictly(row[name], name) for name in parents & row.keys()}
    return with_values(row, objects) if objects else row


def with_messages(row: FileRow) -> FileRow:
    """The row with messages where a text of it is their JSON; see `messages_or_text`."""
    values = {}
    for name in _TEXTS_OR_MESSAGES:
        value = row.get(name)
        if isinstance(value, str) and (messages := messages_or_text(value, name)) is not value:
            values[name] = messages
    return with_values(row, values) if values else row


def messages_or_text(text: str, name: str) -> Any:
    """The messages that a text is the JSON of; of any other, the text itself.

    Raises:
        BadData: messages as Python prints them, which are neither JSON nor a text.
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    if _PRINTED.match(text):
        raise BadData(
            f"{name!r} holds {short(text)}, messages as Python prints them; write the column with json.dumps,"
            " or the file as JSON lines or Parquet"
        )
    return _strictly(text, name) if _are_messages(_from_json(text)) else text


def _number(cell: str) -> object:
    """The cell's number, None for an empty one; of anything else, the cell, which readers refuse by name."""
    if not cell.strip():
        return None
    try:
        number = float(cell)
    except ValueError:
        return cell
    return int(number) if math.isfinite(number) and number.is_integer() else number


def _from_json(text: str) -> object:
    """The JSON that a text is; of any other, the text itself, which may well be a reply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _strictly(text: str, name: str) -> object:
    """The JSON that a column holds instead of a text; text that is none stays, for readers to refuse by name.

    Raises:
        BadData: JSON that no row may hold: a key twice in an object, too deep a nesting, endless numbers.
    """
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError:
        return text
    except UNUSUAL as error:
        raise unusual(repr(name), error) from None


def _are_messages(value: object) -> bool:
    messages = value if isinstance(value, list) else [value]
    return bool(messages) and all(
        isinstance(message, Mapping) and ({"role", "content"} <= message.keys() or {"from", "value"} <= message.keys())
        for message in messages
    )
