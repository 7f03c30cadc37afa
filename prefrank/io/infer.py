"""Infers the one Arrow type that holds every value of a JSON column, whatever row it is in.

null                 fits every type; a key that a row lacks is null
whole numbers        int64, or uint64 where they are too large for it
and fractions        float64, as long as every whole number up to then is exact in it (below 2^53)
text, booleans       string, bool; they go with no other type
lists, objects       list of one such type; struct of all keys that any row has
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from prefrank.errors import BadData, short

_EXACT = 2**53
_CURE = "write .jsonl, or give the column one type"


@dataclass(slots=True)
class Shape:
    """What was seen of a value so far: its kind, the range of its whole numbers, its items or keys."""

    kind: str = "null"
    low: int = 0
    high: int = 0
    keys: "dict[str, Shape]" = field(default_factory=dict)
    items: "Shape | None" = None

    def take(self, value: Any, name: str) -> None:
        """Widen the shape to hold a value too.

        Raises:
            BadData: no type holds both; with the column's dotted name.
        """
        kind = _kind(value)
        if kind == "null":
            return
        if {self.kind, kind} == {"integer", "fraction"}:
            whole = (value,) if kind == "integer" else (self.low, self.high)
            if any(abs(number) > _EXACT for number in whole):
                raise BadData(f"{name!r} holds whole numbers past 2^53 and fractions, which no one type holds; {_CURE}")
            kind = "fraction"
        elif self.kind not in ("null", kind):
            raise BadData(f"{name!r} holds {short(value)}, and {_SAID[self.kind]} in rows before; {_CURE}")
        self.kind = kind
        if isinstance(value, int):
            self._take_integer(value, name)
        elif isinstance(value, str):
            _check_text(value, name)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if key not in self.keys:
                    _check_text(key, f"{name}.{key}" if name else key)
                    self.keys[key] = Shape()
                self.keys[key].take(inner, f"{name}.{key}" if name else key)
        elif isinstance(value, list):
            self.items = self.items or Shape()
            for number, inner in enumerate(value):
                self.items.take(inner, f"{name}[{number}]")

    def _take_integer(self, value: int, name: str) -> None:
        low, high = min(self.low, value), max(self.high, value)
        if low < -(2**63) or high >= 2**64 or (low < 0 and high >= 2**63):
            raise BadData(f"{name!r} holds {short(value)}, past the whole numbers of 64 bits; write .jsonl")
        self.low, self.high = low, high

    def type(self) -> pa.DataType:
        match self.kind:
            case "integer":
                return pa.uint64() if self.high >= 2**63 else pa.int64()
            case "list":
                return pa.list_((self.items or Shape()).type())
            case "object":
                return pa.struct([(key, shape.type()) for key, shape in self.keys.items()])
        return {"null": pa.null(), "boolean": pa.bool_(), "fraction": pa.float64(), "text": pa.string()}[self.kind]

    def schema(self) -> pa.Schema:
        return pa.schema([(key, shape.type()) for key, shape in self.keys.items()])


_SAID = {
    "boolean": "true or false",
    "integer": "whole numbers",
    "fraction": "numbers",
    "text": "text",
    "list": "lists",
    "object": "objects",
}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "boolean"), (int, "integer"), (float, "fraction"), (str, "text"), (list, "list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def check_surrogates(row: Mapping[str, Any]) -> None:
    """Refuse names and texts of a row that UTF-8 cannot hold; those inside lists and objects are no matter.

    Raises:
        BadData: with the name of the column.
    """
    for name, value in row.items():
        _check_text(name, name)
        if isinstance(value, str):
            _check_text(value, name)


def _check_text(value: str, name: str) -> None:
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError as error:
        half = ascii(value[error.start])
        raise BadData(
            f"{name!r} holds a lone surrogate, {half} at {error.start}; write .jsonl, or replace it"
        ) from None
