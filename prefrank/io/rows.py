"""Rows out of files, one at a time: JSON lines, a JSON array, CSV (each plain, .gz, .xz or .zst), Parquet or Arrow.

Lines end at "\\n" alone: a text may hold U+2028 or "\\r", which `str.splitlines` would cut at. Blank lines are skipped
and still counted in line numbers. `line` is a line number in JSON lines and CSV, a row number elsewhere, from 1.
Values of Parquet and Arrow become Python only when they are asked for, as JSON would have them (`io.arrow_values`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prefrank.errors import BadData, short
from prefrank.io.csv_rows import CSV_SUFFIXES, csv_table
from prefrank.io.json_rows import BadRow, is_json_array, json_rows, pass_over
from prefrank.io.packed import PACKED_SUFFIXES, shown
from prefrank.io.saved import STATE, saved_names

__all__ = ["SUFFIXES", "FileRow", "Record", "first_row", "is_arrow", "is_data_file", "is_json_array", "read_records"]

FileRow = Mapping[str, Any]
"""One row of a file: column names and values."""

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
TEXT_SUFFIXES = (*JSON_SUFFIXES, *CSV_SUFFIXES)
SUFFIXES = (*ARROW_SUFFIXES, *TEXT_SUFFIXES, *(text + packed for text in TEXT_SUFFIXES for packed in PACKED_SUFFIXES))
_BATCH = 1024


@runtime_checkable
class Columns(Protocol):
    """Columns of one batch of rows."""

    @property
    def names(self) -> Mapping[str, int]: ...

    def value(self, name: str, row: int) -> Any:
        """The value as JSON would have it. Raises BadData for one that cannot be read."""

    def child(self, name: str) -> "Columns | None":
        """The columns of a column of objects; None for another type."""

    def holds(self, row: int) -> bool:
        """Whether there is an object in this row, and not null."""


class LazyRow(Mapping[str, Any]):
    """One row, equal to the dict of its values; a value becomes Python only when it is asked for, so that what nobody
    reads cannot fail."""

    __slots__ = ("columns", "index")

    def __init__(self, columns: Columns, index: int) -> None:
        self.columns, self.index = columns, index

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns.names:
            raise KeyError(name)
        return self.columns.value(name, self.index)

    def __contains__(self, name: object) -> bool:
        return name in self.columns.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.names)

    def __len__(self) -> int:
        return len(self.columns.names)

    def reach(self, name: str) -> Any:
        """The value, or where it is an object a row of its own, so that what stands beside stays unread."""
        child = self.columns.child(name)
        if child is None:
            return self[name]
        return LazyRow(child, self.index) if child.holds(self.index) else None

    def __repr__(self) -> str:
        return f"a row with the columns {', '.join(self)}"


@dataclass(frozen=True, slots=True)
class Record:
    """One row and where it stands."""

    row: FileRow
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{shown(self.path)}:{self.line}"


def is_data_file(path: Path) -> bool:
    """Whether a file is one of rows by its name; in a folder of `datasets.save_to_disk`, if it is part of the set."""
    if path.name.startswith(".") or not path.name.endswith(SUFFIXES):
        return False
    return path.suffix != ".arrow" or not (path.parent / STATE).is_file() or path.name in saved_names(path.parent)


def is_arrow(path: Path) -> bool:
    """Whether a path is read as Arrow columns: by the end of its name, or as a saved folder."""
    return path.suffix in ARROW_SUFFIXES or path.is_dir()


def is_csv(path: Path) -> bool:
    return path.name.removesuffix(path.suffix if path.suffix in PACKED_SUFFIXES else "").endswith(CSV_SUFFIXES)


def read_records(path: Path, columns: Sequence[str] | None = None, *, bad_row: BadRow = None) -> Iterator[Record]:
    """The rows of one file, lazily (a JSON array is held whole).

    Args:
        path: a file whose name ends in one of SUFFIXES, a folder of `datasets.save_to_disk`, or "-", JSON on standard
            input.
        columns: of a Parquet file, the only ones to read; nested ones as `question.full_text`.
        bad_row: called with the error of a row that is no JSON object, which is then skipped; None raises the error.

    Raises:
        BadData: an empty or damaged file, invalid JSON or CSV, a row that is not an object; with file and line.
        NotFound: no such file.
    """
    rows: Iterator[tuple[int, Any]]
    if is_arrow(path):
        rows = _arrow_rows(path, columns)
    elif is_csv(path):
        rows = csv_table(path)[1]
    else:
        rows = ((line, value) for line, _, value in json_rows(path, bad_row))
    for line, row in rows:
        if isinstance(row, Mapping):
            yield Record(row, path, line)
        else:
            pass_over(no_object(path, line, row), bad_row)


def no_object(path: Path, line: int, row: object) -> BadData:
    return BadData(f"{shown(path)}:{line}: the row is {short(row)}; wanted an object with named columns")


def first_row(path: Path) -> FileRow | None:
    """The first row, all columns; None for a file without rows.

    Raises:
        BadData, NotFound: as `read_records`.
    """
    record = next(read_records(path), None)
    return None if record is None else record.row


def _arrow_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, FileRow]]:
    from prefrank.io.arrow_files import arrow_batches
    from prefrank.io.arrow_values import batch_columns

    line = 0
    for batch in arrow_batches(path, _BATCH, columns)[1]:
        values = batch_columns(batch)
        for index in range(batch.num_rows):
            line += 1
            yield line, LazyRow(values, index)
