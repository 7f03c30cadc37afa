"""Rows of CSV and TSV files: a header, then rows. Every value is text, as the file has it: "1" is not a number, and an
empty cell is an empty text. Cells may be quoted, and hold line ends then.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from prefrank.errors import BadData
from prefrank.io.json_files import repeated
from prefrank.io.packed import decoded, lines
from prefrank.limits import limit, past

CSV_SUFFIXES = (".csv", ".tsv")


def delimiter(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","


def csv_table(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a file, and each row as (the line it begins at, its cells by column).

    Raises:
        BadData: no header, a header that names a column twice, a row of another length, a quote that is not closed;
            with file and line.
        NotFound: no such file.
    """
    rows = _filled_rows(path)
    line, header = next(rows, (0, None))
    if header is None:
        raise BadData(f"{path}: the file is empty; wanted a header and rows")
    if (twice := repeated(header)) is not None:
        raise BadData(f"{path}:{line}: two columns are called {twice!r}; rename one of them")
    return header, _by_column(path, header, rows)


def _by_column(
    path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, cells in rows:
        if len(cells) != len(header):
            raise BadData(f"{path}:{line}: the row has {len(cells)} cells; wanted {len(header)}, as the header has")
        yield line, dict(zip(header, cells, strict=True))


def _filled_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = _CsvLines(path)
    reader = csv.reader(text, delimiter=delimiter(path), strict=True)
    while True:
        line = text.row = reader.line_num + 1
        text.size = 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reason, cure = str(error), "quote cells, and double the quotes in them"
            if reason.startswith("new-line character"):
                reason, cure = "a carriage return outside of quotes", "end lines with a line feed, and quote cells"
            elif reason.startswith("field larger"):
                reason = f"a cell has more than {csv.field_size_limit():,} characters"
                cure = "close its quote, raise csv.field_size_limit, or write the file as JSON lines"
            raise BadData(f"{path}:{line}: not valid CSV ({reason}); {cure}") from None
        if cells is None:
            return
        if cells:
            yield line, cells


class _CsvLines:
    """The lines of a file as text, as many to a row as its quotes want, but of no more bytes than a row may have."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, enumerate(lines(path), start=1)
        self.row, self.size, self._most = 1, 0, limit("line_bytes")

    def __iter__(self) -> Iterator[str]:
        for line, content in self._lines:
            self.size += len(content)
            if self.size > self._most:
                raise BadData(f"{self._path}:{self.row}: the row has {past('line_bytes')}; is a quote not closed?")
            yield decoded(content, f"{self._path}:{line}", "utf-8-sig" if line == 1 else "utf-8")
