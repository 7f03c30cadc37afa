"""Rows out of files: JSON lines (plain, .gz, .xz, .zst), a JSON array, or Parquet, one at a time.

Lines end at "\\n" alone: a text may hold U+2028 or "\\r", which `str.splitlines` would cut at. Blank lines are skipped
and still counted in line numbers. `line` is a line number in a JSON lines file, a row number elsewhere, from 1.
"""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefrank.errors import BadData, short

Row = Mapping[str, Any]
"""One row of a file: column names and values."""

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
PACKED_SUFFIXES = (".gz", ".xz", ".zst")
SUFFIXES = (".parquet", *JSON_SUFFIXES, *(json + packed for json in JSON_SUFFIXES for packed in PACKED_SUFFIXES))
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Record:
    """One row and where it stands."""

    row: Row
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def is_data_file(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def read_records(
    path: Path, columns: Sequence[str] | None = None, *, bad_row: Callable[[BadData], None] | None = None
) -> Iterator[Record]:
    """The rows of one file, lazily (a JSON array is read whole).

    Args:
        path: a file whose name ends in one of SUFFIXES.
        columns: of a Parquet file, the only ones to read; nested ones as `question.full_text`.
        bad_row: hears of a row that is no JSON object, which is then passed over; None raises the error.

    Raises:
        BadData: an empty or damaged file, invalid JSON, a row that is not an object; with file and line.
    """
    if path.suffix == ".parquet":
        rows = _parquet_rows(path, columns)
    elif is_json_array(path):
        rows = enumerate(_json_array(path), start=1)
    else:
        rows = _json_lines(path, bad_row)
    for line, row in rows:
        if isinstance(row, Mapping):
            yield Record(row, path, line)
        else:
            _pass_over(BadData(f"{path}:{line}: the row is {short(row)}; wanted an object with named columns"), bad_row)


def _pass_over(error: BadData, bad_row: Callable[[BadData], None] | None) -> None:
    if bad_row is None:
        raise error from None
    bad_row(error)


def first_row(path: Path) -> Row | None:
    """The first row, all columns; None for a Parquet file without rows.

    Raises:
        BadData: as `read_records`.
    """
    record = next(read_records(path), None)
    return None if record is None else record.row


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.GzipFile(path)
    if path.suffix == ".xz":
        return lzma.LZMAFile(path)
    if path.suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData(f"{path}: cannot be read to its end ({error}); is it whole? Fetch or write it again")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as file:
            yield from file
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _json_lines(path: Path, bad_row: Callable[[BadData], None] | None) -> Iterator[tuple[int, Any]]:
    line = 0
    for line, content in enumerate(_lines(path), start=1):
        if content.strip():
            try:
                row = _parse(content, f"{path}:{line}")
            except BadData as error:
                _pass_over(error, bad_row)
            else:
                yield line, row
    if line == 0:
        raise BadData(f"{path}: the file is empty; wanted one JSON object per line")


def _json_array(path: Path) -> list[Any]:
    rows = _parse(b"".join(_lines(path)), str(path))
    if not rows:
        raise BadData(f"{path}: the file holds an empty list; wanted at least one row")
    return cast(list[Any], rows)


def is_json_array(path: Path) -> bool:
    """Whether a `.json` file is one array; it may as well hold JSON lines."""
    if ".json" not in path.suffixes:
        return False
    return next((content.lstrip()[:1] == b"[" for content in _lines(path) if content.strip()), False)


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise BadData(f"{where}: not valid JSON ({error.msg} at column {error.colno}); wanted one object") from None
    except UnicodeDecodeError as error:
        raise BadData(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise BadData(f"{where}: the JSON is nested too deeply; wanted one object per line") from None


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            line = 0
            for batch in file.iter_batches(batch_size=1024, columns=None if columns is None else list(columns)):
                for row in batch.to_pylist():
                    line += 1
                    yield line, row
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
