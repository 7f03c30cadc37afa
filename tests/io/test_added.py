"""A file comes back with columns added and all else as it was, whatever the kinds of the two files."""

import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefrank.errors import BadData, BadInput, CannotWrite
from prefrank.io.rows import read_records
from tests.io.files import TYPES, add, not_utf8, read_lines, read_table, write_table, write_text

TABLE = pa.table(
    {
        "prompt": ["a", "b"],
        "broken": not_utf8(),
        "when": pa.array([2**61, 1], pa.timestamp("us", tz="Europe/Paris")),
        "nanoseconds": pa.array([1, None], pa.timestamp("ns")),
        "price": pa.array([1, None], pa.decimal128(10, 2)),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "large": pa.array([2**64 - 1, 0], pa.uint64()),
        "nothing": pa.nulls(2),
        "empty": pa.array([[], None], pa.list_(pa.null())),
        "long": pa.array([["x"], None], pa.large_list(pa.large_string())),
        "number": pa.array([1.5, None], pa.float16()),
    },
).replace_schema_metadata({"huggingface": "{}"})  # fmt: skip


@pytest.mark.parametrize("output", ["out.parquet", "out.arrow", "out.feather"])
@pytest.mark.parametrize("source", ["in.parquet", "in.arrow", "in.feather"])
@pytest.mark.parametrize("size", [1, 256])
def test_arrow_stays_arrow(tmp_path: Path, source: str, output: str, size: int) -> None:
    before = read_table(write_table(tmp_path / source, TABLE))
    after = read_table(add(tmp_path / source, tmp_path / output, size))
    assert after.column_names == [*TABLE.column_names, *TYPES]
    assert after.schema.metadata == before.schema.metadata
    assert after.column("score").to_pylist() == [0.0, 1.0]
    for name in TABLE.column_names:
        old, new = before.column(name), after.column(name)
        assert old.type == new.type, name
        assert old.cast(pa.binary()).equals(new.cast(pa.binary())) if name == "broken" else old.equals(new), name


def test_rows_of_parquet_stay_in_large_groups(tmp_path: Path) -> None:
    write_table(tmp_path / "in.parquet", {"a": list(range(1000))})
    assert pq.ParquetFile(add(tmp_path / "in.parquet", tmp_path / "out.parquet", 64)).num_row_groups == 1


@pytest.mark.parametrize("output", ["out.parquet", "out.arrow", "out.feather"])
def test_a_file_without_rows_keeps_its_columns(tmp_path: Path, output: str) -> None:
    write_table(tmp_path / "in.parquet", {"a": pa.array([], pa.int8())})
    after = read_table(add(tmp_path / "in.parquet", tmp_path / output))
    assert after.schema == pa.schema({"a": pa.int8(), **TYPES})
    assert after.num_rows == 0


def test_json_without_rows_has_only_the_added_columns(tmp_path: Path) -> None:
    source = write_text(tmp_path / "in.jsonl", "\n\n")
    assert read_table(add(source, tmp_path / "out.parquet")).schema == pa.schema(TYPES)
    assert add(source, tmp_path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("output", ["out.parquet", "out.arrow"])
def test_the_first_rows_do_not_say_what_the_last_may_hold(tmp_path: Path, output: str) -> None:
    late = {"count": 1.5, "late": "x", "extra": {"k": 1, "l": [True]}, "empty": [{"n": 2}]}
    rows = [{"count": 1, "extra": {"k": None}, "empty": []}] * 300 + [late]
    source = write_text(tmp_path / "in.jsonl", "\n".join(map(json.dumps, rows)))
    after = read_table(add(source, tmp_path / output)).to_pylist()
    assert [row["count"] for row in after] == [1.0] * 300 + [1.5]
    assert {name: after[300][name] for name in late} == late
    assert list(after[300])[-2:] == list(TYPES)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ('{"a": 1}', '{"a": "x"}', r"in\.jsonl:2: 'a' holds 'x', and whole numbers in rows before; write \.jsonl"),
        ('{"a": true}', '{"a": 1}', r"in\.jsonl:2: 'a' holds 1, and true or false in rows before"),
        ('{"a": [1]}', '{"a": {"b": 1}}', r"in\.jsonl:2: 'a' holds .*, and lists in rows before"),
        ('{"a": {"b": [1]}}', '{"a": {"b": ["x"]}}', r"in\.jsonl:2: 'a\.b\[0\]' holds 'x'"),
        ('{"a": 9007199254740993}', '{"a": 1.5}', r"in\.jsonl:2: 'a' holds whole numbers past 2\^53 and fractions"),
        ('{"a": 1.5}', '{"a": 9007199254740993}', r"in\.jsonl:2: 'a' holds whole numbers past 2\^53 and fractions"),
        ("{}", '{"a": 18446744073709551616}', r"in\.jsonl:2: 'a' holds 18446744073709551616, past the whole numbers"),
        ('{"a": -1}', '{"a": 9223372036854775808}', r"in\.jsonl:2: 'a' holds 9223372036854775808, past the whole"),
        ("{}", r'{"a": "\ud800"}', r"in\.jsonl:2: 'a' holds a lone surrogate, '\\ud800' at 0"),
        ("{}", r'{"a\ud800": 1}', r"in\.jsonl:2: 'a\\ud800' holds a lone surrogate"),
        ("{}", '{"a": 1e400}', r"in\.jsonl:2: 'a' holds inf"),
        ("{}", f'{{"a": {"9" * 320}.5}}', r"in\.jsonl:2: 'a' holds inf"),
        ("{}", f'{{"a": {"[" * 60}1{"]" * 60}}}', r"out\.parquet: the columns do not go into \.parquet \(.*nested"),
        ("{}", f'{{"a": {"[" * 900}1{"]" * 900}}}', r"in\.jsonl:2: the .* is nested too deeply"),
        ("{}", '{"a": {}}', r"out\.parquet: the columns do not go into \.parquet \(.*'a'"),
    ],
)
def test_what_no_type_holds_is_one_line_that_names_row_and_column(
    tmp_path: Path, first: str, second: str, message: str
) -> None:
    source = write_text(tmp_path / "in.jsonl", f"{first}\n{second}\n")
    with pytest.raises(BadData, match=message) as caught:
        add(source, tmp_path / "out.parquet")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.fixed_dictionaries({}, optional={"a": JSON, "b": JSON}), min_size=1, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_parquet_of_json_rows_holds_every_value_or_says_which_it_cannot(tmp_path: Path, rows: list[dict]) -> None:
    source = write_text(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    try:
        after = read_table(add(source, tmp_path / "out.parquet", 2)).to_pylist()
    except BadData:
        return
    for row, saved_row in zip(rows, after, strict=True):
        assert without_nulls({name: saved_row.get(name) for name in "ab"}) == without_nulls(row)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := without_nulls(inner)) is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "row",
    [
        '{"a": 1.0, "b": 1E5, "c": 123456789012345678901234567890, "d": 0.1000000000000000055511151231257827}',
        r'{"z": "\ud83d\ude00 \ud800 é", "a": "\u2028", "z2": [ 1,2 ]}',
        "{}",
    ],
)
def test_rows_of_json_come_back_as_they_were_written(tmp_path: Path, row: str) -> None:
    source = write_text(tmp_path / "in.jsonl", f"\ufeff{row}\r\n\n{row}")
    lines = add(source, tmp_path / "out.jsonl").read_text().splitlines()
    comma = "" if row == "{}" else ", "
    assert lines == [f'{row[:-1]}{comma}"score": {number}, "model": "m"}}' for number in ("0.0", "1.0")]


def test_rows_of_an_array_with_a_mark_at_its_start_become_lines(tmp_path: Path) -> None:
    text = '\ufeff[\n  {"a": 1.0,\n   "b": "x\\ny"},\r\n {"a": 1e2}\n]\n'
    lines = add(write_text(tmp_path / "in.json", text), tmp_path / "out.jsonl").read_text().splitlines()
    assert lines[0] == '{"a": 1.0, "b": "x\\ny", "score": 0.0, "model": "m"}'
    assert lines[1] == '{"a": 1e2, "score": 1.0, "model": "m"}'


def test_nan_becomes_null_in_json_and_stays_in_parquet(tmp_path: Path) -> None:
    source = write_text(tmp_path / "in.jsonl", '{"a": NaN, "b": "NaN \\" Infinity", "c": [1.0, NaN]}')
    assert add(source, tmp_path / "out.jsonl").read_text() == (
        '{"a": null, "b": "NaN \\" Infinity", "c": [1.0, null], "score": 0.0, "model": "m"}\n'
    )
    (row,) = read_table(add(source, tmp_path / "out.parquet")).to_pylist()
    assert row["a"] != row["a"]
    (row,) = read_lines(add(tmp_path / "out.parquet", tmp_path / "again.jsonl"))
    assert row["a"] is None


@pytest.mark.parametrize("output", ["out.jsonl", "out.jsonl.gz", "out.csv", "out.parquet", "out.arrow"])
@pytest.mark.parametrize("value", ["1e999", "-1e999", "1E+400", "9" * 400 + ".5"])
def test_a_number_past_every_fraction_passes_into_no_output(tmp_path: Path, output: str, value: str) -> None:
    source = write_text(tmp_path / "in.jsonl", f'{{"a": {{"b": [0.5]}}}}\n{{"a": {{"b": [{value}]}}}}')
    with pytest.raises(BadData, match=r"in\.jsonl:2: 'a\.b\[0\]' holds -?inf"):
        add(source, tmp_path / output)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("value", ["Infinity", "-Infinity"])
def test_an_infinite_number_is_one_line_where_json_would_hold_it(tmp_path: Path, output: str, value: str) -> None:
    source = write_text(tmp_path / "in.jsonl", f'{{"a": 1}}\n{{"a": {{"b": [{value}]}}}}')
    with pytest.raises(BadData, match=r"in\.jsonl:2: 'a\.b\[0\]' holds -?inf, which JSON does not have"):
        add(source, tmp_path / output)
    write_table(tmp_path / "in.parquet", {"x": [0.0, float(value)]})
    with pytest.raises(BadData, match=r"in\.parquet:2: 'x' holds -?inf, which JSON does not have"):
        add(tmp_path / "in.parquet", tmp_path / output)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e400", r"in\.jsonl:2: 'a' holds inf"),
        (r'"x\ud83d"', r"in\.jsonl:2: 'a' holds a lone surrogate, '\\ud83d' at 1; write \.jsonl"),
    ],
)
def test_what_csv_cannot_hold_is_said_with_its_row_and_column(tmp_path: Path, value: str, message: str) -> None:
    source = write_text(tmp_path / "in.jsonl", f'{{"a": [1e5, "\\ud83d"], "b": "\\ud83d\\ude00"}}\n{{"a": {value}}}')
    with pytest.raises(BadData, match=message):
        add(source, tmp_path / "out.csv")


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_csv_without_rows_keeps_its_columns(tmp_path: Path, output: str) -> None:
    after = add(write_text(tmp_path / "in.csv", "b,a\n"), tmp_path / output)
    names = after.read_text().strip().split(",") if output == "out.csv" else read_table(after).column_names
    assert names == ["b", "a", *TYPES]


def test_two_columns_of_one_name_are_said_with_the_file(tmp_path: Path) -> None:
    write_table(tmp_path / "in.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]))
    with pytest.raises(BadData, match=r"in\.parquet: two columns are called 'x'"):
        add(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_what_parquet_refuses_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([1000], pa.decimal128(5, -3))})
    write_table(tmp_path / "in.arrow", table)
    with pytest.raises(BadData, match=r"out\.parquet: the columns do not go into \.parquet \(Scale must be"):
        add(tmp_path / "in.arrow", tmp_path / "out.parquet")


def test_a_union_inside_a_column_of_nulls_goes_through_and_is_refused_where_it_is_read(tmp_path: Path) -> None:
    """Where Arrow itself would end the process."""
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["s", "t"])])
    table = pa.table({"x": pa.StructArray.from_arrays([union], ["u"], mask=pa.array([False, True]))})
    write_table(tmp_path / "in.arrow", table)
    assert read_table(add(tmp_path / "in.arrow", tmp_path / "out.arrow")).column("x").equals(table.column("x"))
    with pytest.raises(BadData, match=r"in\.arrow:1: 'x' cannot be read \(its type sparse_union.*write \.arrow"):
        add(tmp_path / "in.arrow", tmp_path / "out.jsonl")


def test_parquet_becomes_json_lines_by_the_rule_of_each_type(tmp_path: Path) -> None:
    write_table(tmp_path / "in.parquet", TABLE.drop_columns(["broken"]))
    first, _ = read_lines(add(tmp_path / "in.parquet", tmp_path / "out.jsonl"))
    assert first == {
        "prompt": "a", "when": "75039-04-04T19:00:13.693952Z", "nanoseconds": "1970-01-01T00:00:00.000000001",
        "price": "1.00", "map": {"k": 1}, "kind": "x", "large": 2**64 - 1, "nothing": None, "empty": [],
        "long": ["x"], "number": 1.5, "score": 0.0, "model": "m",
    }  # fmt: skip
    write_table(tmp_path / "broken.parquet", TABLE)
    with pytest.raises(BadData, match=r"broken\.parquet:1: 'broken' cannot be read"):
        add(tmp_path / "broken.parquet", tmp_path / "out.jsonl")


def test_csv_is_text_in_and_text_out(tmp_path: Path) -> None:
    source = write_text(tmp_path / "in.csv", '\ufeffa,b\r\n1,"x\ny, ""z"""\r\n,NA\r\n')
    assert read_table(add(source, tmp_path / "out.parquet")).to_pylist() == [
        {"a": "1", "b": 'x\ny, "z"', "score": 0.0, "model": "m"},
        {"a": "", "b": "NA", "score": 1.0, "model": "m"},
    ]
    again = add(source, tmp_path / "out.tsv")
    text = io.StringIO(again.read_text(), newline="")
    assert list(csv.reader(text, delimiter="\t"))[1] == [
        "1",
        'x\ny, "z"',
        "0.0",
        "m",
    ]
    rows = write_text(tmp_path / "in.jsonl", '{"a": 1}\n{"late": [null, true], "a": null}')
    assert add(rows, tmp_path / "out.csv").read_text() == 'a,late,score,model\n1,,0.0,m\n,"[null, true]",1.0,m\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty; wanted a header and rows"),
        ("a,b\n1\n", r"in\.csv:2: the row has 1 cells; wanted 2"),
        ('a,b\n1,2\n1,"x\n2,3\n', r"in\.csv:3: not valid CSV \(unexpected end of data\)"),
        ('a,b\n1,"x"y\n', r"in\.csv:2: not valid CSV"),
        ("a,a\n1,2\n", r"in\.csv:1: two columns are called 'a'"),
    ],
)
def test_damaged_csv_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        list(read_records(write_text(tmp_path / "in.csv", content)))


@pytest.mark.parametrize(("name", "unpack"), [("o.jsonl.gz", gzip.decompress), ("o.jsonl.xz", lzma.decompress)])
def test_packed_output_is_packed_and_always_the_same(tmp_path: Path, name: str, unpack: Any) -> None:
    source = write_text(tmp_path / "in.jsonl", '{"a": 1}')
    packed = add(source, tmp_path / name).read_bytes()
    assert unpack(packed) == b'{"a": 1, "score": 0.0, "model": "m"}\n'
    assert add(source, tmp_path / f"second-{name}").read_bytes() == packed


def test_what_was_packed_can_be_read(tmp_path: Path) -> None:
    source = write_text(tmp_path / "in.jsonl", '{"a": 1}\n{"a": 2}')
    for name in ("o.jsonl.zst", "o.csv.gz", "o.ndjson"):
        assert len(list(read_records(add(source, tmp_path / name)))) == 2


def test_an_output_of_no_known_kind_and_one_that_is_no_file_are_refused(tmp_path: Path) -> None:
    source = write_text(tmp_path / "in.jsonl", '{"a": 1}')
    with pytest.raises(BadInput, match=r"ends in '\.txt'; wanted \.jsonl"):
        add(source, tmp_path / "out.txt")
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(CannotWrite, match="it is not a file; give the name of a file"):
        add(source, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_file_may_be_replaced_by_what_is_made_of_it(tmp_path: Path) -> None:
    for source in (write_text(tmp_path / "a.jsonl", '{"a": 1}'), write_table(tmp_path / "a.parquet", {"a": [1]})):
        add(source, source)
        assert [record.row["score"] for record in read_records(source)] == [0.0]


def test_a_dictionary_may_change_between_batches(tmp_path: Path) -> None:
    parts = [pa.record_batch([pa.array(list(text)).dictionary_encode()], ["d"]) for text in ("ab", "ca")]
    with pa.ipc.new_stream(str(tmp_path / "in.arrow"), parts[0].schema) as file:
        for part in parts:
            file.write_batch(part)
    for name in ("out.arrow", "out.parquet"):
        assert [record.row["d"] for record in read_records(add(tmp_path / "in.arrow", tmp_path / name))] == list("abca")
    with pytest.raises(BadData, match=r"out\.feather: the columns do not go into \.feather"):
        add(tmp_path / "in.arrow", tmp_path / "out.feather")
