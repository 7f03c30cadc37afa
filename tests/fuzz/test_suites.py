"""Broken files of benchmarks and of scores are measured, or refused in one line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.files import message
from tests.evaluation.test_best_of_n import ROW as CANDIDATES
from tests.evaluation.test_judged import judged_row
from tests.evaluation.test_rewardbench import v1_row, v2_row
from tests.evaluation.test_rm_bench import rows as matrix_rows
from tests.evaluation.test_rmb import HARMLESS, HELPFUL
from tests.evaluation.test_rmb import row as rmb_row
from tests.fuzz import breaking, targets
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

JUDGED = "data/dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl"
SUITES: dict[str, tuple[str, list[Any]]] = {
    "rewardbench": ("filtered.jsonl", [v1_row(), v1_row(id=4)]),
    "rewardbench-2": ("test.jsonl", [v2_row("Focus", "1", ["a"], ["b", "c"]), v2_row("Ties", "tied:0", ["a"], ["b"])]),
    "rm-bench": ("total_dataset.json", matrix_rows()),
    "rmb": (f"BoN_set/{HARMLESS}.json", [rmb_row("BoN_set", HARMLESS)]),
    "judgebench": (JUDGED, [judged_row(), judged_row(pair_id="y", source="livebench-math")]),
    "bon-alpacaeval": ("candidates.jsonl", [CANDIDATES]),
    "open-assistant": (
        "validation.messages.jsonl",
        [message("p0", None, "Hi"), message("a1", "p0", "Yes", rank=0), message("a2", "p0", "No", rank=1)],
    ),
}
"""By name: a published file and rows of it."""


@pytest.mark.parametrize("suite", SUITES)
def test_a_sound_file_of_a_suite_is_read(worker: Worker, suite: str) -> None:
    name, rows = SUITES[suite]
    content = "".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(rows)
    assert worker.check(targets.use_suite, suite, "suite", files={f"suite/{name}": content.encode()})


def file_of(draw: st.DrawFn, name: str, rows: list[Any]) -> breaking.Broken:
    return draw(breaking.lines_of(rows) if name.endswith("l") else breaking.json_of(rows))


@fuzz
@given(data=st.data(), suite=st.sampled_from(list(SUITES)))
def test_a_broken_file_of_a_suite_is_measured_or_refused_in_one_line(
    worker: Worker, data: st.DataObject, suite: str
) -> None:
    name, rows = SUITES[suite]
    files: dict[str, Any] = {f"suite/{name}": file_of(data.draw, name, rows)}
    if data.draw(st.booleans()):
        files |= breaking.under("suite", data.draw(breaking.foreign(["notes.jsonl", "data/x", f"{name}.gz", HELPFUL])))
    worker.check(targets.use_suite, suite, "suite", files=files)


SCORED = [{"prompt": row["prompt"], "reply": reply, "score": float(n)}
          for n, row in enumerate(targets.DATA) for reply in (row["chosen"], row["rejected"])]  # fmt: skip
BY_ID = [{"id": "1", "scores": [0.5, 1]}, {"id": "2", "scores": [1.5, 1]}]


@fuzz
@given(data=st.data())
def test_broken_scores_are_measured_or_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from([SCORED, BY_ID]))
    files = {"data.jsonl": targets.JSONL, "scores.jsonl": data.draw(breaking.lines_of(rows))}
    line = ["evaluate", "--model", "scores:scores.jsonl", "--data", "data.jsonl", "--no-baselines"]
    worker.check(targets.run_command, *line, "--resamples", "50", files=files)


ROWS = [{"prompt": "how", "reply": "mix", "n": 1, "note": "a"}, {"prompt": "how", "reply": "no", "n": 2, "note": "b"}]


@fuzz
@given(data=st.data(), suffix=st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "arrow", "jsonl.gz"]))
def test_hostile_rows_are_scored_into_every_kind_of_output(worker: Worker, data: st.DataObject, suffix: str) -> None:
    files = breaking.under("model", worker.bases["ours"]) | {"rows.jsonl": data.draw(breaking.lines_of(ROWS))}
    line = ["score", "rows.jsonl", "--model", "model", "-o", f"out.{suffix}"]
    worker.check(targets.run_command, *line, files=files, writes=[rf"out\.{suffix}"])


@fuzz
@given(data=st.data())
def test_a_broken_folder_of_datasets_is_read_or_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    """As `datasets` saves one to disk."""
    arrow = targets.arrow_of(targets.DATA)
    files: dict[str, Any] = {
        "set/data-00000-of-00001.arrow": arrow,
        "set/dataset_info.json": json.dumps({"features": {}, "splits": None}).encode(),
        "set/state.json": json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}).encode(),
    }
    name = data.draw(st.sampled_from(list(files)))
    value = None if name.endswith("arrow") else json.loads(files[name])
    files[name] = data.draw(breaking.bytes_of(files[name]) if value is None else breaking.json_of(value))
    if data.draw(st.booleans()):
        files |= {"set/dataset_dict.json": data.draw(breaking.json_of({"splits": ["train", "test"]}))}
        files |= breaking.under("set/train", {"data-00000-of-00001.arrow": arrow})
    worker.check(data.draw(st.sampled_from([targets.read_data, targets.read_splits])), "set", files=files)
