"""Files that come back with columns added: read some rows at a time, written whole or not at all.

What a job does not read goes through untouched. Arrow stays Arrow: Parquet and Arrow files come back with the schema
they have, and the added columns behind; CSV is columns of text. JSON stays text. Between them, values become what
`io.arrow_values` and `io.infer` state, and what cannot is an error that names row and column.
"""

import csv
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import pyarrow as pa

from prefrank.errors import BadData, BadInput, CannotWrite, printable_json
from prefrank.io.arrow_files import Save, arrow_batches, batch_writer
from prefrank.io.arrow_values import batch_columns
from prefrank.io.atomic import atomic_file
from prefrank.io.csv_rows import csv_table, delimiter
from prefrank.io.infer import Shape, check_surrogates
from prefrank.io.json_rows import check_finite, json_of, json_rows, valid_json, with_columns
from prefrank.io.packed import PACKED_SUFFIXES, STREAM, Sink, packed_writer
from prefrank.io.rows import ARROW_SUFFIXES, SUFFIXES, LazyRow, Record, is_arrow, is_csv, no_object

_HUGE = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{200}")
"""A number that may be past the largest fraction, which Python reads as infinite."""
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_WAITING = 256
"""Rows that are in memory at once when those that waited are written."""
Added = Mapping[str, Sequence[Any]]
"""Columns to add to some rows: a value for each row, or for each row a list."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file, and what they are made of: the rows' JSON texts, or a record batch of the file's schema."""

    records: tuple[Record, ...]
    texts: tuple[str, ...] = ()
    batch: pa.RecordBatch | None = None


@runtime_checkable
class Writer(Protocol):
    def __call__(self, chunk: Chunk, added: Added) -> None: ...


def read_chunks(path: Path, size: int) -> tuple[pa.Schema | None, Iterator[Chunk]]:
    """A file's rows, at most `size` at a time, and its schema where it has one.

    Raises:
        BadData, NotFound: as `read_records`, where a row is reached.
    """
    if is_arrow(path):
        schema, batches = arrow_batches(path, size)
        return schema, _arrow_chunks(path, batches)
    if is_csv(path):
        header, rows = csv_table(path)
        schema = pa.schema([(name, pa.string()) for name in header])
        return schema, _csv_chunks(path, schema, rows, size)
    return None, _json_chunks(path, size)


def _arrow_chunks(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[Chunk]:
    line = 0
    for batch in filter(len, batches):
        columns = batch_columns(batch)
        records = (Record(LazyRow(columns, index), path, line + index + 1) for index in range(batch.num_rows))
        yield Chunk(tuple(records), batch=batch)
        line += batch.num_rows


def _csv_chunks(
    path: Path, schema: pa.Schema, rows: Iterator[tuple[int, dict[str, str]]], size: int
) -> Iterator[Chunk]:
    while some := list(islice(rows, size)):
        batch = pa.RecordBatch.from_pylist([row for _, row in some], schema=schema)
        yield Chunk(tuple(Record(row, path, line) for line, row in some), batch=batch)


def _json_chunks(path: Path, size: int) -> Iterator[Chunk]:
    rows = json_rows(path)
    while some := list(islice(rows, size)):
        if bad := next(((line, row) for line, _, row in some if not isinstance(row, Mapping)), None):
            raise no_object(path, *bad)
        yield Chunk(tuple(Record(row, path, line) for line, _, row in some), tuple(text for _, text, _ in some))


def check_output(output: Path) -> None:
    """Raises BadInput for a file that cannot be written, by the end of its name."""
    if output != STREAM and not output.name.endswith(SUFFIXES):
        raise BadInput(
            f"the output {output} ends in {output.suffix!r}; wanted .jsonl, .jsonl.gz, .parquet, .arrow or .csv,"
            " or - for stdout"
        )


@contextmanager
def added_columns(output: Path, schema: pa.Schema | None, types: Mapping[str, pa.DataType]) -> Iterator[Writer]:
    """A function that takes rows with the columns to add; the file appears when the block ends well.

    Args:
        output: its name says the kind of file; "-" is JSON lines on standard output, as they come.
        schema: that of the rows, where they have one.
        types: of the columns to add; where a value is a list, of its items.

    Raises:
        BadInput: a name that says no kind.
        BadData: a value that this kind of file cannot hold, with row and column.
        CannotWrite: the file cannot be written, or the disk is full.
    """
    check_output(output)
    if output == STREAM:
        if sys.stdout is None:
            raise CannotWrite("standard output is closed; name a file to write")
        yield _lines_writer(sys.stdout.buffer, shown=sys.stdout.isatty())
        return
    with atomic_file(output) as temporary:
        if output.suffix in ARROW_SUFFIXES:
            with batch_writer(temporary, output) as save:
                if schema is not None:
                    yield from _into_batches(save, schema, types)
                else:
                    yield from _into_inferred(save, temporary.parent, types)
            return
        with packed_writer(temporary, output.suffix if output.suffix in PACKED_SUFFIXES else "") as file:
            if is_csv(output):
                yield from _into_csv(file, output, schema, types)
            else:
                yield _lines_writer(file)


def _lines_writer(file: Sink, *, shown: bool = False) -> Writer:
    """A writer of rows as they are; `shown` on a terminal, with escapes for what it would obey."""

    def write(chunk: Chunk, added: Added) -> None:
        texts = _json_texts(chunk, added)
        if shown:
            texts = (printable_json(text).replace("\r", " ") for text in texts)  # raw only between JSON's values
        file.write(b"".join(f"{text}\n".encode() for text in texts))
        file.flush()

    return write


def _json_texts(chunk: Chunk, added: Added) -> Iterator[str]:
    """Each row as one line of valid JSON, in which what was read as JSON is as it was written."""
    for place, record in enumerate(chunk.records):
        more = {name: values[place] for name, values in added.items()}
        with _at(record):
            if chunk.texts:
                _check_numbers(chunk.texts[place], record.row)
                yield with_columns(valid_json(chunk.texts[place], record.row), more)
            else:
                yield json_of({**record.row, **more})


@contextmanager
def _at(record: Record) -> Iterator[None]:
    """Names the row in what is wrong with it."""
    try:
        yield
    except BadData as error:
        raise BadData(f"{record.where}: {error}") from None
    except RecursionError:
        raise BadData(f"{record.where}: the row is nested too deeply; write .jsonl") from None


def _check_numbers(text: str, row: Any) -> None:
    """Refuse a number that JSON can hold and Python reads as infinite, such as 1e400."""
    if _HUGE.search(text):
        check_finite(row)


def _into_batches(save: Save, schema: pa.Schema, types: Mapping[str, pa.DataType]) -> Iterator[Writer]:
    """Record batches as they are, with arrays added."""
    kinds: dict[str, pa.DataType] = {}

    def write(chunk: Chunk, added: Added) -> None:
        assert chunk.batch is not None
        for name, kind in types.items():
            known = kinds.setdefault(name, pa.list_(kind) if isinstance(added[name][0], list) else kind)
            for record, value in zip(chunk.records, added[name], strict=True):
                if isinstance(value, list) != pa.types.is_list(known):
                    came, before = ("a list", "one value") if isinstance(value, list) else ("one value", "a list")
                    raise BadData(f"{record.where}: {name!r} is {came} here and {before} before; write .jsonl")
        arrays = [pa.array(added[name], kind) for name, kind in kinds.items()]
        save(pa.RecordBatch.from_arrays([*chunk.batch.columns, *arrays], schema=_extended(schema, kinds)))

    yield write
    if not kinds:
        save(pa.RecordBatch.from_pylist([], schema=_extended(schema, types)))


def _extended(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema([*schema, *(pa.field(name, kind) for name, kind in types.items())], metadata=schema.metadata)


def _into_inferred(save: Save, folder: Path, types: Mapping[str, pa.DataType]) -> Iterator[Writer]:
    """Rows without a schema: they wait in an unnamed file until the last one has been seen, then all have one type."""
    shape = Shape()
    with tempfile.TemporaryFile(dir=folder) as waiting:

        def write(chunk: Chunk, added: Added) -> None:
            for place, record in enumerate(chunk.records):
                more = {name: values[place] for name, values in added.items()}
                with _at(record):
                    _check_numbers(chunk.texts[place], record.row)
                    shape.take({**record.row, **more}, "")
                waiting.write(f"{with_columns(chunk.texts[place], more)}\n".encode())

        yield write
        inferred = shape.schema()
        if not inferred:
            save(pa.RecordBatch.from_pylist([], schema=pa.schema(types)))
            return
        own = [column for column in inferred if column.name not in types]
        schema = pa.schema([*own, *(inferred.field(name) for name in types)])
        for rows in _waiting_rows(waiting):
            save(pa.RecordBatch.from_pylist(rows, schema=schema))


def _into_csv(file: Sink, output: Path, schema: pa.Schema | None, types: Mapping[str, pa.DataType]) -> Iterator[Writer]:
    """Text as it is, nothing for null, all else as JSON; the header is known when all rows have been seen."""
    names = dict.fromkeys(schema.names if schema is not None else ())
    with tempfile.TemporaryFile(dir=output.parent) as waiting:

        def write(chunk: Chunk, added: Added) -> None:
            for record, text in zip(chunk.records, _json_texts(chunk, added), strict=True):
                with _at(record):
                    if _ESCAPED_HALF.search(text):
                        check_surrogates(record.row)
                names.update(dict.fromkeys(record.row))
                waiting.write(f"{text}\n".encode())

        yield write
        header = [*names, *types]
        rows = chain.from_iterable(_waiting_rows(waiting))
        for cells in chain([header], ([_cell(row.get(name)) for name in header] for row in rows)):
            line = io.StringIO(newline="")
            csv.writer(line, delimiter=delimiter(output), lineterminator="\n").writerow(cells)
            file.write(line.getvalue().encode())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json_of(value)


def _waiting_rows(waiting: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    waiting.seek(0)
    while some := [json.loads(line) for line in islice(waiting, _WAITING)]:
        yield some
