"""Broken files of data are read, row by row or not at all, or refused in one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from tests.data.files import axis_row, hh_row, message, own_row, shp_row, summary_row, webgpt_row
from tests.fuzz import breaking, targets
from tests.fuzz.breaking import Broken
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
FORMATS: dict[str, list[dict[str, Any]]] = {
    "pairs": targets.DATA[:3],
    "own": [own_row(ranks=[0, 2, 1], id="a"), own_row(ratings=[1.0, 0.5, 0.2]), own_row(preferences=[[0, 1, 0.9]])],
    "labelled": [{"prompt": TURNS[:1], "chosen": "a", "rejected": "b", "probability": 0.7, "weight": 2.0}],
    "turns": [{"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No"}]}],
    "hh": [hh_row("Hi", "Yes", "No"), hh_row("And", "a", "b")],
    "webgpt": [webgpt_row("a", "b", 1.0)],
    "summaries": [summary_row("a", "b", 0)],
    "axes": [axis_row("a", 7), axis_row("b", 3)],
    "shp": [shp_row()],
    "oasst": [message("p0", None, "Hi"), message("a1", "p0", "Yes", rank=0), message("a2", "p0", "No", rank=1)],
    "kto": [{"prompt": "Hi", "completion": "Yes", "label": True}, {"prompt": "Hi", "completion": "No", "label": False}],
    "ultrafeedback": [{"instruction": "Hi", "completions": [{"response": "a", "overall_score": 7.0},
                                                            {"response": "b", "overall_score": 3.0}]}],
    "safe": [{"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1,
              "is_response_0_safe": True, "is_response_1_safe": False}],
    "arena": [{"conversation_a": TURNS, "conversation_b": [TURNS[0], {"role": "assistant", "content": "No"}],
               "winner": "model_a", "model_a": "x", "model_b": "y"}],
    "nectar": [{"prompt": "\n\nHuman: Hi\n\nAssistant: ", "answers": [{"answer": "a", "rank": 1}, {"answer": "b",
    "rank": 2}]}], "helpsteer": [{"prompt": "Hi", "response": "a", "helpfulness": 4, "correctness": 4, "coherence": 4,
    "complexity": 1,
                   "verbosity": 1}] * 2,
}  # fmt: skip
"""Rows of the formats that are read, one of each kind of reader."""


def packed(draw: st.DrawFn, content: Broken, name: str) -> dict[str, Any]:
    """A file, now and then compressed, and broken then."""
    suffix, pack = breaking.pick(
        draw, [("", bytes)] * 4 + [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
    )
    packed = pack(content.content)
    if suffix and draw(st.booleans()):
        torn = draw(breaking.bytes_of(packed))
        return {name + suffix: Broken(torn.content, f"{content.how}, packed, then {torn.how}")}
    return {name + suffix: Broken(packed, content.how)}


@st.composite
def row_files(draw: st.DrawFn) -> dict[str, Any]:
    """A file of rows of some format, broken."""
    rows = FORMATS[breaking.pick(draw, list(FORMATS))]
    if draw(st.booleans()):
        return packed(draw, draw(breaking.lines_of(rows)), "data.jsonl")
    return packed(draw, draw(breaking.json_of(rows)), "data.json")


@fuzz
@given(files=row_files())
def test_broken_rows_are_counted_or_refused(worker: Worker, files: dict[str, Any]) -> None:
    worker.check(targets.read_data, next(iter(files)), files=files)


@fuzz
@given(data=st.data())
def test_broken_csv_is_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    rows = FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    odd = data.draw(breaking.texts())
    column = data.draw(st.sampled_from(list(rows[0])))
    for row in rows:
        cells = {name: json.dumps(one) if isinstance(one, list | dict) else one for name, one in row.items()}
        writer.writerow({name: cells.get(name) for name in rows[0]} | {column: odd.encode("utf-8", "replace").decode()})
    content = Broken(text.getvalue().encode(), f"{column} := {odd[:40]!r}")
    if data.draw(st.booleans()):
        content = data.draw(breaking.bytes_of(content.content))
    files = {f"data.{data.draw(st.sampled_from(['csv', 'tsv', 'csv.gz']))}": content}
    worker.check(targets.read_data, next(iter(files)), files=files)


def columns(value: Any) -> st.SearchStrategy[pa.Array]:
    """Parquet columns of many types in place of one."""
    when = [pa.array([1, 2, None], pa.timestamp("ns")), pa.array([1, 2, None], pa.duration("s")), pa.array([1, 2, 3],
                      pa.date32()),
            pa.array(["1.5", "2.5", None]).cast(pa.decimal128(9, 2)), pa.array([b"\xff", b"a", None], pa.binary()),
            pa.array(["a", "b", "a"]).dictionary_encode(), pa.array([None, None, None]), pa.array([True, False, None]),
            pa.array([float("nan"), float("inf"), 1e308]), pa.array([[["a"]], [], None]), pa.array([{"a": 1},
            {"a": None}, None]),
            pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())), pa.array(["a", "", None],
            pa.large_string()),
            pa.array([2**63, 1, 0], pa.uint64()), pa.array(["\x1b[2J", "[/red]", "x" * 10**6])]  # fmt: skip
    return st.sampled_from(when)


@fuzz
@given(data=st.data())
def test_parquet_of_odd_types_is_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    rows = FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    table = pa.Table.from_pylist(([*rows] * 3)[:3])
    name = data.draw(st.sampled_from(table.column_names))
    odd = data.draw(columns(name))
    table = table.set_column(table.column_names.index(name), name, odd)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    content = Broken(sink.getvalue(), f"{name} of {odd.type}")
    if data.draw(st.sampled_from([False, False, True])):
        content = data.draw(breaking.bytes_of(content.content))
    worker.check(targets.read_data, "data.parquet", files={"data.parquet": content})
