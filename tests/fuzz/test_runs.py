"""Broken run files, runs and curves are refused in one line, or left out of a listing by name."""

import gzip
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import breaking, targets
from tests.fuzz.breaking import Broken
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

RUN = targets.make_run()


@fuzz
@given(data=st.data())
def test_a_broken_run_file_is_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    broken = data.draw(breaking.json_of(RUN))
    name = data.draw(st.sampled_from(["run.json", "run.json", "run.json.gz"]))
    if name.endswith(".gz"):
        broken = Broken(gzip.compress(broken.content), broken.how)
    worker.check(targets.use_runs, name, files={name: broken})


@fuzz
@given(broken=breaking.json_of(RUN))
def test_a_leaderboard_of_a_broken_run_is_refused_in_one_line(worker: Worker, broken: Broken) -> None:
    files = {"runs/a.json": json.dumps(RUN).encode(), "runs/b.json": broken}
    worker.check(targets.board, "runs", files=files)


@fuzz
@given(data=st.data())
def test_broken_runs_are_listed_or_named(worker: Worker, data: st.DataObject) -> None:
    run = worker.bases["run"]
    file = data.draw(st.sampled_from(["run.json", "curve.jsonl", "last/prefrank.json"]))
    if file == "curve.jsonl":
        broken = data.draw(breaking.lines_of([json.loads(line) for line in run[file].splitlines()]))
    else:
        broken = data.draw(breaking.json_of(json.loads(run[file])))
    files: dict[str, Any] = breaking.under("runs/a", run) | breaking.under("runs/b", run | {file: broken})
    if file == "last/prefrank.json":
        del files["runs/b/run.json"]
    shown = worker.check(targets.list_runs, "runs", files=files)
    assert "finished" in shown  # the other one
