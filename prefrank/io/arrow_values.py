"""Arrow values as plain Python, the same that a JSON file of the rows would hold.

text, numbers, booleans, null      as they are
date, time, timestamp, duration    ISO 8601 text of full precision; a timestamp with a time zone in UTC, with Z
decimal                            text with all its digits
bytes                              bytes, so that nobody takes them for text; JSON out has them in base64
list, object                       list, object
map                                object where its keys are texts, else a list of [key, value]
dictionary, run-end, extension     the value that is meant; a UUID as text with hyphens
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefrank.errors import BadData
from prefrank.io.json_files import repeated

UNREADABLE = (pa.ArrowException, ValueError, TypeError, OverflowError)
_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


class ArrowColumns:
    """The columns of a record batch, or of a column of objects; each is turned into Python once, when first read."""

    def __init__(self, arrays: dict[str, pa.Array], valid: pa.Array | None = None) -> None:
        self._arrays, self._valid = arrays, valid
        self._names = {name: place for place, name in enumerate(arrays)}
        self._values: dict[str, list[Any] | None] = {}
        self._children: dict[str, ArrowColumns | None] = {}

    @property
    def names(self) -> dict[str, int]:
        return self._names

    def value(self, name: str, row: int) -> Any:
        if name not in self._values:
            try:
                self._values[name] = plain_values(self._arrays[name])
            except UNREADABLE:
                self._values[name] = None  # some value cannot be read; others can
        values = self._values[name]
        if values is not None:
            return values[row]
        try:
            return plain_values(self._arrays[name].slice(row, 1))[0]
        except UNREADABLE as error:
            raise BadData(f"{name!r} cannot be read ({' '.join(str(error).split())})") from None

    def child(self, name: str) -> "ArrowColumns | None":
        if name not in self._children:
            array = self._arrays[name]
            objects = pa.types.is_struct(array.type)
            self._children[name] = ArrowColumns(_fields(array), array.is_valid()) if objects else None
        return self._children[name]

    def holds(self, row: int) -> bool:
        return self._valid is None or self._valid[row].as_py()


def batch_columns(batch: pa.RecordBatch) -> ArrowColumns:
    """Raises BadData where two columns have one name, which no row could tell apart."""
    return ArrowColumns(_distinct(batch.schema.names, batch.columns))


def plain_values(array: pa.Array) -> list[Any]:
    """Every value of an array as JSON would have it; NaN and infinite numbers stay.

    Raises:
        UNREADABLE: text that is not UTF-8, or a type that has no such form; nothing says which row.
    """
    if isinstance(array, pa.ExtensionArray):
        return _extensions(array)
    for fits, read in _READERS:
        if fits(array.type):
            return read(array)
    raise BadData(f"its type {array.type} has no form in JSON; write .arrow")


def _extensions(array: pa.ExtensionArray) -> list[Any]:
    match array.type.extension_name:
        case "arrow.uuid":
            return [None if value is None else str(UUID(bytes=value)) for value in array.storage.to_pylist()]
        case "arrow.bool8":
            return plain_values(array.storage.cast(pa.bool_()))
    return plain_values(array.storage)


def _python(array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return values


def _decimals(array: pa.Array) -> list[Any]:
    return [None if value is None else format(value, "f") for value in array.to_pylist()]


def _moments(array: pa.Array) -> list[Any]:
    """Dates and times as text, by numpy, which knows nanoseconds and years past 9999."""
    kind = array.type
    unit = "D" if kind == pa.date32() else "ms" if kind == pa.date64() else kind.unit
    whole = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    texts = np.datetime_as_string(pc.fill_null(whole, 0).cast(pa.int64()).to_numpy().view(f"datetime64[{unit}]"))
    if pa.types.is_time(kind):
        texts = [text.partition("T")[2] for text in texts]
    elif kind == pa.date64():
        texts = [text.partition("T")[0] for text in texts]
    zone = "Z" if pa.types.is_timestamp(kind) and kind.tz is not None else ""
    return [f"{text}{zone}" if valid else None for text, valid in zip(texts, _valid(array), strict=True)]


def _durations(array: pa.Array) -> list[Any]:
    digits = _UNITS[array.type.unit]
    return [None if value is None else _duration(value, digits) for value in array.view(pa.int64()).to_pylist()]


def _duration(value: int, digits: int) -> str:
    whole, part = divmod(abs(value), 10**digits)
    fraction = f".{part:0{digits}}" if digits else ""
    return f"{'-' if value < 0 else ''}PT{whole}{fraction}S"


def _lists(array: pa.Array) -> list[Any]:
    lengths = [length or 0 for length in pc.list_value_length(array).to_pylist()]
    valid = _valid(array)
    lengths = [length if there else 0 for length, there in zip(lengths, valid, strict=True)]
    values = plain_values(array.flatten())
    bounds = pairwise(accumulate(lengths, initial=0))
    return [values[start:end] if there else None for (start, end), there in zip(bounds, valid, strict=True)]


def _maps(array: pa.Array) -> list[Any]:
    offsets = array.offsets.to_pylist()
    first, count = offsets[0], offsets[-1] - offsets[0]
    keys, items = (plain_values(part.slice(first, count)) for part in (array.keys, array.items))
    objects: list[Any] = []
    for (start, end), there in zip(pairwise(offsets), _valid(array), strict=True):
        names, values = keys[start - first : end - first], items[start - first : end - first]
        if all(isinstance(name, str) for name in names) and _is_text(array.type.key_type):
            if len(set(names)) < len(names):
                raise BadData("a map holds a key twice, which no object can; write .parquet or .arrow")
            objects.append(dict(zip(names, values, strict=True)) if there else None)
        else:
            objects.append([list(entry) for entry in zip(names, values, strict=True)] if there else None)
    return objects


def _objects(array: pa.Array) -> list[Any]:
    columns = {name: plain_values(part) for name, part in _fields(array).items()}
    rows = zip(*columns.values(), strict=True) if columns else ((),) * len(array)
    valid = _valid(array)
    return [dict(zip(columns, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]


def _fields(array: pa.StructArray) -> dict[str, pa.Array]:
    names = [array.type.field(place).name for place in range(array.type.num_fields)]
    # Arrow ends the process when it is to put nulls into a union; one of those is refused where it is read
    parts = [
        array.field(place) if pa.types.is_union(array.type.field(place).type) else pc.struct_field(array, [place])
        for place in range(len(names))
    ]
    return _distinct(names, parts)


def _distinct(names: list[str], arrays: list[pa.Array]) -> dict[str, pa.Array]:
    if len(set(names)) < len(names) and (twice := repeated(names)) is not None:
        raise BadData(f"two columns are called {twice!r}; rename one of them")
    return dict(zip(names, arrays, strict=True))


def _valid(array: pa.Array) -> list[bool]:
    valid: list[bool] = array.is_valid().to_pylist()
    return valid


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    known = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_kind(kind) for is_kind in known)


def _is_list(kind: pa.DataType) -> bool:
    known = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view),
    )
    return any(is_kind(kind) for is_kind in known)


def _is_simple(kind: pa.DataType) -> bool:
    known = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return _is_text(kind) or _is_bytes(kind) or any(is_kind(kind) for is_kind in known)


def _is_moment(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind)


_READERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (_is_simple, _python),
    (_is_list, _lists),
    (pa.types.is_struct, _objects),
    (pa.types.is_map, _maps),
    (_is_moment, _moments),
    (pa.types.is_duration, _durations),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_dictionary, lambda array: plain_values(array.dictionary_decode())),
    (pa.types.is_run_end_encoded, lambda array: plain_values(pc.run_end_decode(array))),
)
