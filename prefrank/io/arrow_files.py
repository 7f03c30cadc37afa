"""Parquet files, Arrow files and streams, and folders of `datasets.save_to_disk`, as record batches in and out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefrank.errors import BadData, PrefrankError
from prefrank.io.json_files import repeated
from prefrank.io.packed import most_rows, unreadable
from prefrank.io.parquet_batches import parquet_batches
from prefrank.io.plain_files import check_plain
from prefrank.io.saved import saved_files
from prefrank.limits import past

_FILE_MARK = b"ARROW1"
_OLD_FEATHER = b"FEA1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_GROUP_ROWS = 1 << 14
_GROUP_BYTES = 1 << 27
"""A row group of Parquet ends at whichever comes first."""

_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError, RecursionError)
"""What Arrow raises for files that are broken or made to break it."""

Save = Callable[[pa.RecordBatch], None]


def arrow_batches(
    path: Path, size: int, columns: Sequence[str] | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A file's or saved folder's schema and its rows, at most `size` at a time, as Arrow has them.

    Timestamps of Parquet's old INT96 are read in microseconds: nanoseconds of 64 bits end in 2262.

    Args:
        columns: of a Parquet file, the only ones to read; nested ones as `question.full_text`.

    Raises:
        BadData: a damaged file, two columns of one name, or a saved folder whose files are not there or differ in
            their columns.
        NotFound: no such file.
    """
    try:
        if path.is_dir():
            return _saved_batches(path, size)
        check_plain(path, BadData)
        if path.suffix == ".parquet":
            schema, batches = parquet_batches(path, size, columns)
        else:
            schema, whole = _ipc_batches(path)
            batches = _cut(path, whole, size)
        return _distinct(path, schema), _guarded(path, batches)
    except _DAMAGE as error:
        raise _said(path, error) from None


def _distinct(path: Path, schema: pa.Schema) -> pa.Schema:
    if (twice := repeated(schema.names)) is not None:
        raise BadData(f"{path}: two columns are called {twice!r}; rename one of them")
    return schema


def _said(path: Path, error: Exception) -> PrefrankError:
    if isinstance(error, MemoryError):
        return BadData(f"{path}: a part of it takes more memory than there is; write it in smaller record batches")
    return error if isinstance(error, PrefrankError) else unreadable(path, error)


def _guarded(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = next(batches, None)
        except _DAMAGE as error:
            raise _said(path, error) from None
        if batch is None:
            return
        yield batch


def _cut(path: Path, batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    rows, most = 0, most_rows(path)
    for batch in batches:
        rows += batch.num_rows
        if rows > most:
            raise BadData(f"{path}: holds less than two bytes a row and {past('packed_rows')}")
        _check_places(batch)
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


def _check_places(batch: pa.RecordBatch) -> None:
    """See that no value lies outside of what was read, which would end the process where it is read.

    Text that is not UTF-8 is no matter here: nobody may want it.

    Raises:
        pa.ArrowInvalid: it does.
    """
    batch.validate()
    for array in batch.columns:
        with suppress(pa.ArrowException, TypeError):  # of a type that cannot be looked at in another way
            array = array.view(_as_bytes(array.type))
        array.validate(full=True)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes for text, however deep."""
    if isinstance(kind, pa.BaseExtensionType):
        return _as_bytes(kind.storage_type)
    if kind in _BYTES:
        return _BYTES[kind]
    if pa.types.is_struct(kind):
        return pa.struct([column.with_type(_as_bytes(column.type)) for column in kind])
    if pa.types.is_map(kind):
        return pa.map_(
            kind.key_field.with_type(_as_bytes(kind.key_type)), kind.item_field.with_type(_as_bytes(kind.item_type))
        )
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_as_bytes(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def _ipc_batches(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    with path.open("rb") as file:
        mark = file.read(len(_FILE_MARK))
    if mark[:4] == _OLD_FEATHER:
        raise BadData(f"{path}: a Feather file of version 1; write it again with version 2, as all programs do now")
    source = pa.OSFile(str(path))  # not a map of it, which ends the process where the file is cut while it is read
    if mark == _FILE_MARK:
        reader = pa.ipc.open_file(source)
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    if source.size() >= len(_STREAM_END):
        source.seek(source.size() - len(_STREAM_END))
        if source.read() != _STREAM_END:  # one that was cut between two batches reads well, with rows missing
            raise BadData(f"{path}: an Arrow stream without its end mark; is it whole? Fetch or write it again")
        source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, _unchanged(path, source.size(), stream)


def _unchanged(path: Path, size: int, stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of a stream, whose file must still have its size: one that was cut reads well, with rows missing."""
    yield from stream
    if path.stat().st_size != size:
        raise BadData(f"{path}: its size changed while it was read; read it again when nobody writes it")


def _saved_batches(folder: Path, size: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    parts = [arrow_batches(path, size) for path in saved_files(folder)]
    schema = parts[0][0]
    if any(not other.equals(schema) for other, _ in parts):
        raise BadData(f"{folder}: its files have different columns; save the data set again")
    return schema, (batch for _, batches in parts for batch in batches)


@contextmanager
def batch_writer(path: Path, named: Path) -> Iterator[Save]:
    """A function that writes record batches of one schema: Parquet, an Arrow stream (.arrow) or file (.feather).

    Args:
        path: where to write.
        named: the name that the file will have; it says the kind.

    Raises:
        BadData: a type that this kind of file cannot hold.
    """
    writers: list[pq.ParquetWriter | pa.ipc.RecordBatchStreamWriter | pa.ipc.RecordBatchFileWriter] = []
    waiting: list[pa.RecordBatch] = []

    def flush() -> None:
        if not writers:
            writers.append(_open_writer(path, named, waiting[0].schema))
        writers[0].write_table(pa.Table.from_batches(waiting))
        waiting.clear()

    def save(batch: pa.RecordBatch) -> None:
        waiting.append(batch)
        if (
            sum(batch.num_rows for batch in waiting) >= _GROUP_ROWS
            or sum(batch.nbytes for batch in waiting) >= _GROUP_BYTES
        ):
            flush()

    try:
        yield save
        if waiting:
            flush()
        for writer in writers:
            writer.close()
        if named.suffix == ".parquet":
            pq.read_schema(path)  # what is nested too deeply is written, and could not be read
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise BadData(
            f"{named}: the columns do not go into {named.suffix} ({reason}); write .jsonl or .arrow"
        ) from None
    finally:
        for writer in writers:
            with suppress(pa.ArrowException, OSError):
                writer.close()


def _open_writer(
    path: Path, named: Path, schema: pa.Schema
) -> pq.ParquetWriter | pa.ipc.RecordBatchStreamWriter | pa.ipc.RecordBatchFileWriter:
    if named.suffix == ".parquet":
        return pq.ParquetWriter(path, schema)
    return (pa.ipc.new_file if named.suffix == ".feather" else pa.ipc.new_stream)(str(path), schema)
