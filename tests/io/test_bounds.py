"""Files that are made to take a machine's memory or time, or are not files at all: one line, at once."""

import gzip
import io
import json
import lzma
import os
import socket
import struct
import sys
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prefrank.errors import BadData, BadInput, PrefrankError
from prefrank.io.arrow_files import arrow_batches
from prefrank.io.packed import packed_writer
from prefrank.io.rows import read_records
from tests.io.files import save_to_disk, write_table, write_text

ROW = b'{"a": "x"}\n'


def packed(path: Path, content: bytes) -> Path:
    with packed_writer(path, path.suffix) as file:
        file.write(content)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [dict(record.row) for record in read_records(path)]


def said(path: Path) -> str:
    """What a file is refused with; its rows are read to the end."""
    with pytest.raises(BadInput) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("a.jsonl", ROW + b'{"a": "%s"}\n' % (b"x" * 2000), 2),
        ("a.jsonl", ROW + b"x" * 2000, 2),
        ("a.json", b'[{"a": "x"}, {"a": "%s"}]' % (b"x" * 2000), 2),
        ("a.json", b'[{"a": "x"}, {"a": "%s' % (b"x" * 2000), 2),
        ("a.csv", b"a,b\n1,2\n" + b"x" * 2000 + b",2\n", 3),
        ("a.csv", b'a,b\n1,2\n3,"4\n' + b"x\n" * 1000, 3),
    ],
)
def test_a_row_past_the_bound_is_refused_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str, name: str, content: bytes, row: int
) -> None:
    monkeypatch.setattr("prefrank.io.json_array._STEP", 8)
    monkeypatch.setattr("prefrank.io.packed._PIECE", 16)
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", "1000")
    path = packed(tmp_path / (name + packing), content)
    assert f"{path}:{row}: the " in (message := said(path))
    assert "has more than 1,000 bytes, which PREFRANK_MAX_LINE_BYTES may raise" in message


def test_a_row_past_the_bound_is_refused_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", "1000")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROW + b"x" * 2000)))
    assert said(Path("-")).startswith("standard input:2: the line has more than 1,000 bytes")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.jsonl.zst"])
def test_blank_lines_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PREFRANK_MAX_BLANK_LINES", "100")
    path = packed(tmp_path / name, b"\n" * 100 + ROW * 2)
    assert len(list(read_records(path))) == (1 if name.endswith("csv") else 2)
    packed(path, b" \r\n" * 101 + ROW)
    assert "more than 100 blank lines, which PREFRANK_MAX_BLANK_LINES may raise" in said(path)


@pytest.mark.parametrize("suffix", [".xz", ".zst"])
def test_what_unpacks_to_far_more_than_it_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = packed(tmp_path / f"a.jsonl{suffix}", (b'{"a": "' + b"x" * 1000 + b'"}\n') * 3000)
    monkeypatch.setenv("PREFRANK_MAX_UNPACKED_BYTES", "4e6")
    assert sum(1 for _ in read_records(path)) == 3000
    monkeypatch.setenv("PREFRANK_MAX_UNPACKED_BYTES", "1e6")
    assert "more than 1,000,000 bytes, which PREFRANK_MAX_UNPACKED_BYTES may raise" in said(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ROW * 9000), ("a.csv", b"a\n" + b"1\n" * 9000)])
def test_a_packed_file_of_more_rows_than_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, name: str, content: bytes
) -> None:
    path = packed(tmp_path / f"{name}{suffix}", content)
    assert len(read(path)) == 9000
    monkeypatch.setenv("PREFRANK_MAX_PACKED_ROWS", "8000")
    assert "more than 8,000 rows, which PREFRANK_MAX_PACKED_ROWS may raise" in said(path)
    array = packed(tmp_path / f"a.json{suffix}", b"[" + b'{"a": 1},' * 9000 + b'{"a": 2}]')
    assert "more than 8,000 rows, which PREFRANK_MAX_PACKED_ROWS may raise" in said(array)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ROW * 80_000), ("a.csv", b"a\n" + b"1\n" * 80_000), ("a.json", b"[" + b'{"a": 1},' * 80_000 + b"{}]")],
)
def test_a_file_of_too_many_rows_is_refused_before_most_of_them_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, name: str, content: bytes
) -> None:
    monkeypatch.setenv("PREFRANK_MAX_PACKED_ROWS", "70000")
    records = read_records(packed(tmp_path / (name + suffix), content))
    assert sum(1 for _ in zip(range(3000), records, strict=False)) == 3000
    with pytest.raises(BadData, match="more than 70,000 rows"):
        for _ in zip(range(40_000), records, strict=False):
            pass


def test_short_replies_that_each_repeat_one_long_prompt_are_no_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = " ".join(map(str, range(2000)))
    rows = [{"prompt": long, "reply": str(number * 7919 % 10007)} for number in range(400)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = packed(tmp_path / "a.jsonl.xz", content)
    assert len(content) > 600 * path.stat().st_size
    for name in ("PACKED_ROWS", "UNPACKED_BYTES"):
        monkeypatch.setenv(f"PREFRANK_MAX_{name}", "1000")
    assert read(path) == rows


def test_an_xz_file_of_several_streams_is_read_whole_and_its_rest_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(lzma.compress(ROW * 3) + bytes(8) + lzma.compress(ROW) + bytes(4))
    assert len(list(read_records(path))) == 4
    path.write_bytes(lzma.compress(ROW) + b"something else")
    assert "cannot be read to its end" in said(path)


def test_an_xz_file_that_wants_gigabytes_to_be_unpacked_is_refused(tmp_path: Path) -> None:
    content = bytearray(lzma.compress(ROW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]))
    properties = content.index(0x21, 12) + 2  # of the block header that follows the 12 bytes of the stream's
    content[properties] = 40  # 4 GiB
    end = 12 + (content[12] + 1) * 4 - 4
    content[end : end + 4] = struct.pack("<I", zlib.crc32(bytes(content[12:end])))
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(content)
    assert "unpacking it takes more than 268,435,456 bytes, which PREFRANK_MAX_WINDOW_BYTES" in said(path)


def test_a_long_value_that_every_row_of_parquet_names_takes_no_room_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), ["x" * 20_000])
    path = write_table(tmp_path / "a.parquet", pa.table({"a": long, "b": [["q"]] * 400}))
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", "1e6")
    batches = list(arrow_batches(path, 1024)[1])
    assert max(batch.num_rows for batch in batches) <= 50
    assert sum(batch.num_rows for batch in batches) == 400
    assert [batch.num_rows for batch in arrow_batches(path, 1024, ["b"])[1]] == [400]
    monkeypatch.setenv("PREFRANK_MAX_UNPACKED_BYTES", "2e6")
    monkeypatch.setattr("prefrank.io.parquet_batches.MOST_PACKED", 250)
    assert "it unpacks to over 2000 times its size" in said(path)


def test_a_list_that_names_a_long_value_very_often_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", "1e6")
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), ["x" * 20_000])
    table = pa.table({"a": pa.ListArray.from_arrays([0, 400], values)})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    assert "a row of row group 0 unfolds to more than 1,000,000 bytes" in said(tmp_path / "a.parquet")


def test_rows_of_nothing_without_end_are_refused(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        path = write_table(tmp_path / name, pa.table({"a": pa.nulls(20_000_000)}))
        assert "holds less than two bytes a row and more than 262,144 rows" in said(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".csv", ".parquet", ".arrow", ""])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    fifo, circle, server = (tmp_path / f"{kind}{suffix}" for kind in ("fifo", "circle", "server"))
    os.mkfifo(fifo)
    circle.symlink_to(circle)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server))
        assert f"{fifo} is a FIFO; wanted a plain file" in said(fifo)
        assert f"{server} is a socket" in said(server)
    assert f"{circle} cannot be read" in said(circle)
    device = tmp_path / f"device{suffix}"
    device.symlink_to("/dev/zero")
    assert f"{device} is a device" in said(device)


def test_a_stream_that_has_a_name_is_to_be_given_as_standard_input() -> None:
    read_end, write_end = os.pipe()
    assert said(Path(f"/dev/fd/{read_end}")).endswith("is a FIFO; wanted a plain file, or - for standard input")
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("name", ["../a.arrow", "/tmp/a.arrow", "state.json", "", "sub/a.arrow"])
def test_a_saved_data_set_names_no_file_that_lies_elsewhere(tmp_path: Path, name: str) -> None:
    folder = save_to_disk(tmp_path / "set", pa.record_batch({"a": [1]}))
    (tmp_path / "a.arrow").write_bytes((folder / "data-00000-of-00001.arrow").read_bytes())
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert "state.json names the file" in said(folder)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}] * 2}))
    assert "twice" in said(folder)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_the_last_of_very_many_columns_may_not_have_the_name_of_the_first(tmp_path: Path, name: str) -> None:
    names = [f"c{number}" for number in range(50_000)]
    names[-1] = names[-2]
    path = tmp_path / name
    if name == "a.csv":
        write_text(path, ",".join(names) + "\n")
    elif name == "a.jsonl":
        write_text(path, "{" + ", ".join(f'"{one}": 1' for one in names) + "}\n")
    else:
        names = names[-100:]
        write_table(path, pa.Table.from_arrays([pa.array([1])] * len(names), names=names))
    assert "c49998" in said(path)


TABLE = pa.table(
    {
        "text": ["a", "bb", None],
        "lists": [["x"], None, ["y", "zz"]],
        "objects": [{"a": "q", "b": [1, 2]}] * 3,
        "words": pa.array(["u", "v", "u"]).dictionary_encode(),
        "maps": pa.array([[("k", "v")]] * 3, pa.map_(pa.string(), pa.string())),
        "views": pa.array(["a text that is too long to stand inside its view", "b", None], pa.string_view()),
    }
)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@example([])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.parquet"])
def test_no_bytes_of_an_arrow_file_end_the_process(tmp_path: Path, name: str, changes: list[tuple[int, int]]) -> None:
    table = TABLE if name != "a.parquet" else TABLE.drop(["views"])
    content = bytearray(write_table(tmp_path / name, table).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / name).write_bytes(content)
    with suppress(PrefrankError) if changes else nullcontext():
        rows = read(tmp_path / name)
        assert changes or [row["text"] for row in rows] == ["a", "bb", None]


def test_facts_of_a_parquet_column_that_contradict_each_other_do_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [["x"]] * 3, "b": ["y"] * 3}), path, store_schema=False)
    content = path.read_bytes()
    sizes = b"\x16\x06\x19\x26\x06\x00\x19"  # a histogram of two levels, which comes to have three
    assert content.count(sizes) == 1
    path.write_bytes(content.replace(sizes, sizes.replace(b"\x26", b"\x36")))
    assert "cannot be read to its end" in said(path)
    (batch,) = arrow_batches(path, 1024, ["b"])[1]
    assert batch.to_pydict() == {"b": ["y"] * 3}


@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.parquet"])
def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    batch = pa.record_batch({"a": ["x" * 1000] * 2000})
    if name == "a.parquet":
        pq.write_table(pa.table(batch), tmp_path / name, row_group_size=100, use_dictionary=False, compression=None)
    else:
        with (pa.ipc.new_file if name == "a.feather" else pa.ipc.new_stream)(tmp_path / name, batch.schema) as file:
            for start in range(0, len(batch), 400):
                file.write_batch(batch.slice(start, 400))
    records = read_records(tmp_path / name)
    next(records)
    os.truncate(tmp_path / name, 4096)
    with suppress(BadData):
        assert sum(1 for _ in records) == len(batch) - 1, "not all rows, and no error"


@pytest.mark.parametrize("offsets", [[0, 9_000_000, 2, 3], [0, -5, 2, 3], [0, 3, 1, 3]])
def test_text_that_would_lie_outside_of_what_was_read_is_refused(tmp_path: Path, offsets: list[int]) -> None:
    places = pa.py_buffer(struct.pack("<4i", *offsets))
    texts = pa.Array.from_buffers(pa.string(), 3, [None, places, pa.py_buffer(b"abc")])
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), pa.schema({"a": pa.string()})) as file:
        file.write_batch(pa.record_batch({"a": texts}))
    assert "is it whole?" in said(tmp_path / "a.arrow")


def test_a_gzip_bomb_inside_an_array_is_held_to_one_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_LINE_BYTES", "1e6")
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[" + b" " * 5_000_000 + b'{"a": 1}]'))
    (record,) = read_records(tmp_path / "a.json.gz")
    assert record.row == {"a": 1}
