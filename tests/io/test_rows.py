"""Files: every way of packing them reads alike, and each kind of damage is one line that names file and line."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData, NotFound
from prefrank.io.rows import read_records
from tests.data.files import hh_row, own_row, write_lines, write_parquet
from tests.io.files import not_utf8, save_to_disk, write_table, write_text

ROWS = [own_row(ranks=[0, 2, 1]), own_row(prompt="Nenne eine Farbe: größer\u2028oder kleiner?", ranks=[1, 2, 0])]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def write(path: Path) -> Path:
    if path.suffix in (".parquet", ".arrow", ".feather"):
        return write_table(path, pa.Table.from_pylist(ROWS))
    if path.name == "saved":
        return save_to_disk(path, *(pa.RecordBatch.from_pylist([row]) for row in ROWS))
    if path.name == "marked.json":
        return write_text(path, "\ufeff" + json.dumps(ROWS, indent=1))
    if path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(LINES)
        return path
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(json.dumps(ROWS).encode() if path.name == "array.json" else LINES))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.json",
        "array.json",
        "a.ndjson",
        "a.jsonl.gz",
        "a.json.gz",
        "a.jsonl.xz",
        "a.jsonl.zst",
        "marked.json",
        "a.parquet",
        "a.arrow",
        "a.feather",
        "saved",
    ],
)
def test_every_packing_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    records = list(read_records(write(tmp_path / name)))
    assert [record.row for record in records] == ROWS
    assert [record.line for record in records] == [1, 2]


def test_csv_gives_text_and_the_line_that_a_row_begins_at(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", 'prompt,chosen,rejected\n"a\nb",1,""\n\nc,2,x\n')
    assert [(record.line, record.row) for record in read_records(path)] == [
        (2, {"prompt": "a\nb", "chosen": "1", "rejected": ""}),
        (5, {"prompt": "c", "chosen": "2", "rejected": "x"}),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".csv", ".parquet", ".arrow", ""])
def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NotFound, match=rf"there is no file .*absent{suffix}$"):
        list(read_records(tmp_path / f"absent{suffix}"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="a folder is not a file of rows; give a file"):
        list(read_records(tmp_path))


def test_comparisons_are_read_from_csv_and_from_a_saved_data_set(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    for split in ("train", "test"):
        save_to_disk(tmp_path / "set" / split, pa.RecordBatch.from_pylist([row]))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    write_text(tmp_path / "a.csv", "prompt,chosen,rejected\nHi,Hello!,What?\n")
    for path, split in ((tmp_path / "set", "test"), (tmp_path / "set" / "train", None), (tmp_path / "a.csv", None)):
        loaded = load_comparisons(path, split=split)
        assert loaded.report.rows == 1
        assert loaded.comparisons[0].replies == ("Hello!", "What?")


def test_a_broken_value_that_no_reader_wants_stops_no_reader(tmp_path: Path) -> None:
    columns = {"prompt": ["Hi", "Ho"], "chosen": ["a", "c"], "rejected": ["b", "d"], "raw": not_utf8()}
    columns |= {"when": pa.array([2**61, 1], pa.timestamp("us")), "exact": pa.array([1, 2], pa.timestamp("ns"))}
    path = write_table(tmp_path / "a.parquet", columns)
    assert len(load_comparisons(path).comparisons) == 2


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\n\n"))
    assert [record.line for record in read_records(path)] == [1, 3]


def test_parquet_reads_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", [{"question": {"full_text": "Q", "id": "1"}, "tokens": [1], "score": 1.0}]
    )
    (record,) = read_records(path, ["question.full_text", "score", "absent"])
    assert record.row == {"question": {"full_text": "Q"}, "score": 1.0}


GOOD = json.dumps(ROWS[0]).encode()
PACKED = pa.compress(GOOD * 9, "zstd", asbytes=True)
ZIPPED = gzip.compress(GOOD, mtime=0)
BROKEN = own_row(prompt="a\ud800", ranks=[0, 1, 2])
LONELY = own_row(replies=["Blue."], ranks=[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", r"empty\.jsonl: the file is empty"),
        ("blank.jsonl", b"\n \n", r"blank\.jsonl: the file has no rows"),
        ("empty.json", b"[]", r"empty\.json: the file holds an empty list"),
        ("torn.jsonl", GOOD + b'\n{"prompt": "x', r"torn\.jsonl:2: not valid JSON \(.* at column \d+\)"),
        ("bytes.jsonl", GOOD + b'\n{"prompt": "\xff"}', r"bytes\.jsonl:2: not UTF-8"),
        ("wide.jsonl", GOOD + b'\n{"n": ' + b"1" * 5000 + b"}", r"wide\.jsonl:2: a number has too many digits"),
        ("utf16.jsonl", '{"a": 1}'.encode("utf-16"), r"utf16\.jsonl:1: not UTF-8 text \(UTF-16\)"),
        ("torn.json", b"[" + GOOD, r"torn\.json: not valid JSON \(Expecting ',' delimiter at line 1 column \d+\)"),
        ("more.json", b"[" + GOOD + b"]\n x", r"more\.json: not valid JSON \(Extra data at line 2 column 2\)"),
        ("comma.json", b"[" + GOOD + b",\n]", r"comma\.json: not valid JSON \(Expecting value at line 2 column 1\)"),
        ("short.jsonl.zst", PACKED[:-9], r"short\.jsonl\.zst: cannot be read to its end"),
        ("deep.jsonl", GOOD + b"\n" + b"[" * 100_000, r"deep\.jsonl:2: the JSON is nested too deeply"),
        ("list.jsonl", GOOD + b"\n[1, 2]", r"list\.jsonl:2: the row is \[1, 2\]; wanted an object"),
        ("twice.jsonl", GOOD + b'\n{"a": {"b": 1, "b": 2}}', r"twice\.jsonl:2: the key 'b' stands twice in one object"),
        ("twice.json", b'[{"a": 1, "a": 1}]', r"twice\.json:1: the key 'a' stands twice in one object"),
        ("control.jsonl", b'{"a": "\t"}', r"control\.jsonl:1: not valid JSON \(Invalid control character at column 8"),
        ("packed.jsonl", ZIPPED, r"packed\.jsonl:1: not UTF-8 text \(gzip\); its name must end in \.gz"),
        ("utf16.csv", "a,b\n1,2\n".encode("utf-16"), r"utf16\.csv:1: not UTF-8 text \(UTF-16\); save it as UTF-8"),
        ("mac.csv", b"a,b\r1,2\r", r"mac\.csv:1: not valid CSV \(a carriage return outside of quotes\)"),
        ("null.jsonl", b"null", r"null\.jsonl:1: the row is null"),
        ("surrogate.jsonl", GOOD + b"\n" + json.dumps(BROKEN).encode(), r"surrogate\.jsonl:2: .* lone surrogate"),
        ("column.jsonl", b'{"prompt": "a", "responses": ["b"]}', r"is 'responses' meant to be 'replies'\?"),
        ("none.jsonl", b"{}", r"none\.jsonl:1: columns \(none\) are those of no known format"),
        ("short.jsonl.gz", gzip.compress(GOOD * 9, mtime=0)[:-20], r"short\.jsonl\.gz: cannot be read to its end"),
        ("plain.jsonl.gz", GOOD, r"plain\.jsonl\.gz: cannot be read to its end"),
        ("short.jsonl.xz", lzma.compress(GOOD * 9)[:-20], r"short\.jsonl\.xz: cannot be read to its end"),
        ("text.parquet", b"PAR1 no PAR1", r"text\.parquet: cannot be read to its end"),
        ("table.tab", b"a,b", r"table\.tab: a file of this kind cannot be read; wanted one of \.parquet"),
        ("one.jsonl", json.dumps(LONELY).encode(), r"no comparison in 1 rows \(fewer than two replies: 1\)"),
        ("hh.jsonl", json.dumps({**hh_row("a", "b", "c"), "rejected": 3}).encode(), r"hh\.jsonl:1: 'rejected' holds 3"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadData, match=message) as caught:
        load_comparisons(path)
    assert "\n" not in str(caught.value)


def test_an_error_in_the_middle_of_a_file_names_its_line(tmp_path: Path) -> None:
    rows = [own_row(ranks=[0, 1, 2])] * 3 + [own_row(ranks=[0, 1])]
    for path in (write_lines(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "a.parquet", rows)):
        with pytest.raises(BadData, match=rf"{path}:4: 3 replies came with 2 ranks"):
            load_comparisons(path)


def test_a_parquet_file_without_rows_is_an_error(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(BadData, match="has no rows"):
        load_comparisons(tmp_path / "a.parquet")


def test_a_missing_file_or_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no data set, file or folder is called .*absent\.jsonl"):
        load_comparisons(tmp_path / "absent.jsonl")
    with pytest.raises(NotFound, match="no data file in"):
        load_comparisons(tmp_path)
