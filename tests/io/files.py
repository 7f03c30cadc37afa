"""Files for the io tests, and a job that adds two columns to one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefrank.io.added import added_columns, read_chunks

TYPES = {"score": pa.float64(), "model": pa.string()}


def add(source: Path, output: Path, size: int = 256) -> Path:
    """The source with `score`, the row's number, and `model` added."""
    schema, chunks = read_chunks(source, size)
    done = 0
    with added_columns(output, schema, TYPES) as write:
        for chunk in chunks:
            count = len(chunk.records)
            write(chunk, {"score": [float(done + place) for place in range(count)], "model": ["m"] * count})
            done += count
    return output


def write_text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def write_table(path: Path, columns: dict[str, Any] | pa.Table) -> Path:
    """Parquet, an Arrow stream or an Arrow file, by the name."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream)(str(path), table.schema) as file:
            file.write_table(table)
    return path


def read_table(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return (pa.ipc.open_file if path.suffix == ".feather" else pa.ipc.open_stream)(path.read_bytes()).read_all()


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_bytes().splitlines()]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def not_utf8() -> pa.Array:
    """Two rows of text, the first of which is not UTF-8, as some programs write them."""
    return pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"\xff\xfea")]
    )


def save_to_disk(folder: Path, *parts: pa.RecordBatch) -> Path:
    """What `datasets.save_to_disk` leaves, with a cache beside it, as `map` leaves them."""
    folder.mkdir(parents=True)
    names = [f"data-{place:05}-of-{len(parts):05}.arrow" for place in range(len(parts))]
    for name, batch in zip([*names, "cache-0123456789abcdef.arrow"], [*parts, parts[0]], strict=True):
        with pa.ipc.new_stream(str(folder / name), batch.schema) as file:
            file.write_batch(batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder
