"""Parquet files as record batches of bounded memory, whatever their few bytes unfold to.

A value that is written once and named by every row of a file takes its room in each row of a batch. Where the sizes in
a file's own record leave that open, one row is read with its values still apart, which shows the longest of them.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prefrank.errors import BadData
from prefrank.io.packed import MOST_PACKED, most_rows
from prefrank.limits import limit, past

_UNFOLDS = f"it unpacks to over {MOST_PACKED} times its size and to"


def parquet_batches(path: Path, size: int, columns: Sequence[str] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A file's schema and its rows, at most `size` at a time; fewer where they are large.

    Timestamps of Parquet's old INT96 are read in microseconds: nanoseconds of 64 bits end in 2262.

    Args:
        columns: the only ones to read; nested ones as `question.full_text`.

    Raises:
        BadData: it unfolds to far more than it has.
        pa.ArrowException, OSError: what Arrow says of a damaged file.
    """
    file = pq.ParquetFile(path, coerce_int96_timestamp_unit="us")
    _check_size(path, file.metadata)
    return file.schema_arrow, _batches(path, file, size, None if columns is None else list(columns))


def _check_size(path: Path, facts: pq.FileMetaData) -> None:
    sizes = (facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    if facts.num_rows > most_rows(path):
        raise BadData(f"{path}: holds less than two bytes a row and {past('packed_rows')}")
    if sum(sizes) > _allowed(path):
        raise BadData(f"{path}: {_UNFOLDS} {past('unpacked_bytes')}")


def _allowed(path: Path) -> int:
    return max(limit("unpacked_bytes"), MOST_PACKED * path.stat().st_size)


def _batches(path: Path, file: pq.ParquetFile, size: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    wanted = [
        place
        for place, leaf in enumerate(leaves)
        if columns is None or any(f"{leaf.path}.".startswith(f"{name}.") for name in columns)
    ]
    texts = [leaves[place].path for place in wanted if leaves[place].physical_type == "BYTE_ARRAY"]
    apart = pq.ParquetFile(
        path, metadata=file.metadata, read_dictionary=texts, pre_buffer=False, coerce_int96_timestamp_unit="us"
    )
    groups = (
        (*_rows_at_once(path, file, apart, group, size, columns, wanted), group) for group in range(file.num_row_groups)
    )
    for (rows, _), alike in groupby(groups, key=lambda group: group[:2]):
        yield from file.iter_batches(batch_size=rows, row_groups=[group for *_, group in alike], columns=columns)


def _rows_at_once(
    path: Path,
    file: pq.ParquetFile,
    values_apart: pq.ParquetFile,
    group: int,
    size: int,
    columns: list[str] | None,
    wanted: Sequence[int],
) -> tuple[int, int]:
    """Rows of a batch of one row group, and what tells it from groups that can be read in one go with it."""
    # Facts of a broken column end the process where Python asks for them, and are an error where they are read.
    next(values_apart.iter_batches(batch_size=1, row_groups=[group], columns=columns), None)
    facts, most = file.metadata.row_group(group), limit("line_bytes")
    chunks = [facts.column(place) for place in wanted]
    apart = [chunk for chunk in chunks if chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY"]
    rows = min(size, facts.num_rows)
    per_row = {chunk.path_in_schema: -(-chunk.num_values // max(1, facts.num_rows)) for chunk in apart}
    if rows * sum(per_row[chunk.path_in_schema] * chunk.total_uncompressed_size for chunk in apart) <= most:
        return size, -1
    names = list(per_row)
    reader = pq.ParquetFile(path, read_dictionary=names, pre_buffer=False, coerce_int96_timestamp_unit="us")
    first = next(reader.iter_batches(batch_size=1, row_groups=[group], columns=names), None)
    longest = 0 if first is None else sum(map(_longest, first.columns))
    if longest * max(per_row.values()) > most:
        raise BadData(f"{path}: a row of row group {group} unfolds to {past('line_bytes')}; is it honest?")
    if longest * max(chunk.num_values for chunk in apart) > (allowed := _allowed(path)):
        batches = reader.iter_batches(batch_size=size, row_groups=[group], columns=names)
        if sum(_unfolded(array) for batch in batches for array in batch.columns) > allowed:
            raise BadData(f"{path}: {_UNFOLDS} {past('unpacked_bytes')}")
    return max(1, min(size, most // max(1, longest * max(per_row.values())))), group


def _longest(array: pa.Array) -> int:
    """Bytes of the longest values that an array of any depth holds once for several rows, of every column in it."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(_longest(array.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _longest(array.keys) + _longest(array.items)
    return _longest(array.values) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else 0


def _unfolded(array: pa.Array) -> int:
    """Bytes of an array's values when each has its own."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(_unfolded(array.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _unfolded(array.keys) + _unfolded(array.items)
    return _unfolded(array.values) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else 0
