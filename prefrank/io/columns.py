"""Columns by name: a mapping from the names that readers know to those that a file has, nested ones with dots."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prefrank.errors import BadData, BadInput, short, suggest
from prefrank.io.rows import FileRow, LazyRow

Columns = Mapping[str, str]
"""From a known name, such as `prompt`, to the file's own, such as `question` or `info.post`."""


def parse_columns(text: str) -> dict[str, str]:
    """`prompt=question,chosen=good` as a mapping, as the command line takes it.

    >>> parse_columns("prompt=question,chosen=out.good")
    {'prompt': 'question', 'chosen': 'out.good'}

    Raises:
        BadInput: a part without "=", an empty name, or a name given twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        name, equals, own = (piece.strip() for piece in part.partition("="))
        if not (name and equals and own):
            raise BadInput(f"columns are {text!r}; wanted NAME=COLUMN,..., such as prompt=question,chosen=good")
        if name in columns:
            raise BadInput(f"columns name {name!r} twice ({columns[name]!r}, {own!r}); keep one of them")
        columns[name] = own
    return columns


def field(row: FileRow, name: str) -> Any:
    """The value at a dotted name such as `info.post`; a column that itself has dots in its name wins.

    Raises:
        BadData: no such column.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping):
            raise BadData(f"{name!r} wants an object where {short(value)} is")
        if part not in value:
            raise BadData(f"no column {name!r}{suggest(part, map(str, value))}")
        value = value.reach(part) if isinstance(value, LazyRow) else value[part]
    return dict(value) if isinstance(value, LazyRow) else value


class _View(Mapping[str, Any]):
    """A row under other names, with some values of its own; what is not asked for stays unread."""

    __slots__ = ("_names", "_row", "_values")

    def __init__(self, row: FileRow, names: Mapping[str, str], values: Mapping[str, Any]) -> None:
        self._row, self._names, self._values = row, dict(names) | {name: name for name in values}, values

    def __getitem__(self, name: str) -> Any:
        return self._values[name] if name in self._values else field(self._row, self._names[name])

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def mapped(row: FileRow, columns: Columns, without: Collection[str] = ()) -> FileRow:
    """The row under the names that readers know: columns that the mapping takes are renamed, all others stay.

    Args:
        row: under the file's names.
        columns: the mapping.
        without: names that are left out, unless the mapping has them.

    Raises:
        BadData: a column that is not there.
    """
    taken = {*columns.values(), *without}
    values = {name: field(row, own) for name, own in columns.items()}
    return _View(row, {name: name for name in row if name not in taken}, values)


def with_values(row: FileRow, values: Mapping[str, Any]) -> FileRow:
    """The row with some values more, or in place of its own."""
    return _View(row, {name: name for name in row}, values)
