"""Arrow values as JSON has them: each type by its rule, in whole arrays and in slices; only what is read is turned."""

import base64
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrank.errors import BadData
from prefrank.io.arrow_values import plain_values
from prefrank.io.columns import field, mapped
from prefrank.io.json_rows import json_of
from prefrank.io.rows import read_records
from tests.io.files import not_utf8, save_to_disk, write_table

CASES: list[tuple[pa.Array, list[Any]]] = [
    (pa.array([2**64 - 1, 0, None], pa.uint64()), [2**64 - 1, 0, None]),
    (pa.array([1.5, None], pa.float16()), [1.5, None]),
    (pa.array([date(2020, 1, 2), None]), ["2020-01-02", None]),
    (pa.array([86_400_000, None], pa.date64()), ["1970-01-02", None]),
    (pa.array([253_402_300_800, -1, None], pa.timestamp("s")), ["10000-01-01T00:00:00", "1969-12-31T23:59:59", None]),
    (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001", None]),
    (pa.array([0], pa.timestamp("ms", tz="Europe/Paris")), ["1970-01-01T00:00:00.000Z"]),
    (pa.array([3_661_001, None], pa.time32("ms")), ["01:01:01.001", None]),
    (pa.array([-1500, 2000, None], pa.duration("ms")), ["-PT1.500S", "PT2.000S", None]),
    (pa.array([3], pa.duration("s")), ["PT3S"]),
    (pa.array([Decimal("1.50"), Decimal("-1E+3"), None], pa.decimal128(10, 2)), ["1.50", "-1000.00", None]),
    (pa.array([b"\xff", None]), [b"\xff", None]),
    (pa.array([[("k", 1), ("l", None)], [], None], pa.map_(pa.string(), pa.int64())), [{"k": 1, "l": None}, {}, None]),
    (pa.array([[(1, "x")], None], pa.map_(pa.int64(), pa.string())), [[[1, "x"]], None]),
    (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    (pa.array([[1, None], None, []], pa.list_(pa.int8())), [[1, None], None, []]),
    (pa.array([None, [1, 2]], pa.list_(pa.int8(), 2)), [None, [1, 2]]),
    (pa.array([[1], None], pa.list_view(pa.int64())), [[1], None]),
    (pa.array([[{"a": {"b": [date(2020, 1, 2)]}}], []]), [[{"a": {"b": ["2020-01-02"]}}], []]),
    (pa.array([{"a": None}, None], pa.struct([("a", pa.null())])), [{"a": None}, None]),
    (pa.array([{}, None], pa.struct([])), [{}, None]),
    (pa.array([[]], pa.list_(pa.null())), [[]]),
    (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\0" * 15 + b"\1", None], pa.binary(16))),
        ["00000000-0000-0000-0000-000000000001", None],
    ),
    (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())), [True, False, None]),
]  # fmt: skip


@pytest.mark.parametrize(("array", "values"), CASES, ids=[str(array.type) for array, _ in CASES])
def test_each_type_has_one_form_in_json(array: pa.Array, values: list[Any]) -> None:
    assert plain_values(array) == values
    assert json.loads(json_of(values)) == [base64.b64encode(one).decode() if one == b"\xff" else one for one in values]
    for start in range(len(values)):
        assert plain_values(array.slice(start, 1)) == values[start : start + 1]


@given(
    st.recursive(st.none() | st.integers(-9, 9) | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=8)
)
def test_what_json_holds_comes_back_as_it_was(value: Any) -> None:
    try:
        array = pa.array([value, None, value])
    except (pa.ArrowException, TypeError, ValueError):
        return  # values of several types
    assert plain_values(array) == [value, None, value]


def test_a_map_that_holds_a_key_twice_and_a_type_without_a_form_are_said() -> None:
    with pytest.raises(BadData, match="a map holds a key twice"):
        plain_values(pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())))
    with pytest.raises(BadData, match="month_day_nano_interval has no form in JSON"):
        plain_values(pa.array([(1, 2, 3)], pa.month_day_nano_interval()))


TABLE = {
    "prompt": ["a", "b"],
    "broken": not_utf8(),
    "out": pa.StructArray.from_arrays([pa.array(["good", None]), not_utf8()], ["text", "raw"]),
    "when": pa.array([2**61, 1], pa.timestamp("us")),
}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_columns_that_nobody_reads_cannot_fail(tmp_path: Path, name: str) -> None:
    first, second = (record.row for record in read_records(write_table(tmp_path / name, TABLE)))
    assert (first["prompt"], second["prompt"], second["broken"]) == ("a", "b", "a")
    assert [field(row, "out.text") for row in (first, second)] == ["good", None]
    assert mapped(first, {"reply": "out.text"})["reply"] == "good"
    assert "broken" in mapped(first, {"reply": "out.text"})
    with pytest.raises(BadData, match=r"'broken' cannot be read .*utf-8"):
        first["broken"]


def test_a_null_object_has_no_columns_of_its_own(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.arrow", {"out": pa.array([{"text": "x"}, None])})
    first, second = (record.row for record in read_records(path))
    assert field(first, "out") == {"text": "x"}
    with pytest.raises(BadData, match=r"'out\.text' wants an object where null is"):
        field(second, "out.text")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_table(path, pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))
    with pytest.raises(BadData, match="two columns are called 'a'"):
        list(read_records(path))


def test_a_saved_data_set_is_read_as_its_state_says(tmp_path: Path) -> None:
    parts = [pa.record_batch({"a": [0, 1]}), pa.record_batch({"a": [2]})]
    folder = save_to_disk(tmp_path / "set" / "train", *parts)
    assert [(record.row["a"], record.line) for record in read_records(folder)] == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(BadData, match=r"set: it holds the splits train; give one, such as .*train"):
        list(read_records(tmp_path / "set"))
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(BadData, match=r"data-00001-of-00002\.arrow: not there, and state\.json names it"):
        list(read_records(folder))
    (folder / "state.json").write_text("{}")
    with pytest.raises(BadData, match=r"state\.json: _data_files is missing; wanted a list of objects"):
        list(read_records(folder))


@pytest.mark.parametrize("cut", [0, 5, 50, -4, -8])
def test_an_arrow_stream_that_was_cut_is_never_read_as_a_shorter_one(tmp_path: Path, cut: int) -> None:
    path = write_table(tmp_path / "a.arrow", {"a": [1, 2]})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadData, match=r"a\.arrow: .*is it whole\?"):
        list(read_records(path))


def test_old_timestamps_of_96_bits_may_stand_past_2262(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pa.table({"when": pa.array([253_370_764_800_000_000], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (record,) = read_records(tmp_path / "a.parquet")
    assert record.row == {"when": "9999-01-01T00:00:00.000000"}
