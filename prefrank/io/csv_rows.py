"""Rows of CSV and TSV files: a header, then rows. Every value is text, as the file has it: "1" is no number, and an
empty cell is an empty text. Cells may be quoted, and hold line ends then.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from prefrank.errors import BadData
from prefrank.io.packed import lines

CSV_SUFFIXES = (".csv", ".tsv")


def delimiter(path: Path) -> str:
    return "\t" if ".tsv" in path.suffixes else ","


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row as (the line it begins at, its cells by column).

    Raises:
        BadData: no header, a header that names a column twice, a row of another length, a quote that is not closed;
            with file and line.
        NotFound: no such file.
    """
    reader = csv.reader(_text(path), delimiter=delimiter(path), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadData(
                f"{path}:{line}: not valid CSV ({error}); quote cells, and double the quotes in them"
            ) from None
        if cells is None:
            break
        if not cells:
            continue
        if header is None:
            header = cells
            if twice := next((name for name in cells if cells.count(name) > 1), None):
                raise BadData(f"{path}:{line}: two columns are called {twice!r}; rename one of them")
            continue
        if len(cells) != len(header):
            raise BadData(f"{path}:{line}: the row has {len(cells)} cells; wanted {len(header)}, as the header has")
        yield line, dict(zip(header, cells, strict=True))
    if header is None:
        raise BadData(f"{path}: the file is empty; wanted a header and rows")


def _text(path: Path) -> Iterator[str]:
    for line, content in enumerate(lines(path), start=1):
        try:
            yield content.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = f"{error.reason} at byte {error.start}"
            raise BadData(f"{path}:{line}: not UTF-8 text ({found}); save it as UTF-8") from None
