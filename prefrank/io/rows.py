"""Rows out of files, one at a time: JSON lines, a JSON array, CSV (each plain, .gz, .xz or .zst), Parquet or Arrow.

Lines end at "\\n" alone: a text may hold U+2028 or "\\r", which `str.splitlines` would cut at. Blank lines are skipped
and still counted in line numbers. `line` is a line number in JSON lines and CSV, a row number elsewhere, from 1.
Values of Parquet and Arrow become Python only when they are asked for, as JSON would have them (`io.arrow_values`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, short
from prefrank.io.csv_rows import CSV_SUFFIXES, csv_table
from prefrank.io.json_rows import BadRow, is_json_array, json_rows, pass_over
from prefrank.io.lazy import LazyRow
from prefrank.io.packed import PACKED_SUFFIXES, shown
from prefrank.io.saved import STATE, saved_names

__all__ = ["SUFFIXES", "Record", "Row", "first_row", "is_arrow", "is_data_file", "is_json_array", "read_records"]

Row = Mapping[str, Any]
"""One row of a file: column names and values."""

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
TEXT_SUFFIXES = (*JSON_SUFFIXES, *CSV_SUFFIXES)
SUFFIXES = (*ARROW_SUFFIXES, *TEXT_SUFFIXES, *(text + packed for text in TEXT_SUFFIXES for packed in PACKED_SUFFIXES))
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One row and where it stands."""

    row: Row
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
        bad_row: hears of a row that is no JSON object, which is then passed over; None raises the error.

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


def first_row(path: Path) -> Row | None:
    """The first row, all columns; None for a file without rows.

    Raises:
        BadData, NotFound: as `read_records`.
    """
    record = next(read_records(path), None)
    return None if record is None else record.row


def _arrow_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, Row]]:
    from prefrank.io.arrow_files import arrow_batches
    from prefrank.io.arrow_values import batch_columns

    line = 0
    for batch in arrow_batches(path, _BATCH, columns)[1]:
        values = batch_columns(batch)
        for index in range(batch.num_rows):
            line += 1
            yield line, LazyRow(values, index)
