"""Folders with somebody's own files in them: whatever is done there, these files stay."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import breaking, targets
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

RECIPE = json.dumps(targets.RECIPE).encode()
LINES = {
    "train": ["train", "recipe.yaml"],
    "dry": ["train", "recipe.yaml", "--dry-run"],
    "over": ["train", "recipe.yaml", "--overwrite"],
    "resume": ["train", "recipe.yaml", "--resume"],
    "rate": ["train", "recipe.yaml", "--find-lr"],
    "quantise": ["quantise", "model", "run", "--data", "data.jsonl", "--force"],
    "merge": ["merge", "adapter", "run"],
    "score": ["score", "data.jsonl", "--model", "model", "--columns", "reply=chosen", "-o", "run/out.jsonl"],
    "evaluate": [
        "evaluate",
        "--model",
        "model",
        "--data",
        "data.jsonl",
        "--no-baselines",
        "--resamples",
        "50",
        "--json",
        "run/out.json",
    ],
    "runs": ["runs", "."],
    "info": ["info", "run"],
}

OURS = ["run.json", "curve.jsonl", "last/prefrank.json", "best/config.json"]
"""Files that are called as those of a run."""


def files_of(worker: Worker) -> dict[str, Any]:
    files = breaking.under("model", worker.bases["ours"]) | breaking.under("adapter", worker.bases["adapter"])
    return files | breaking.under("base", worker.bases["plain"]) | {"data.jsonl": targets.JSONL, "recipe.yaml": RECIPE}


@fuzz
@given(data=st.data())
def test_files_of_others_stay(worker: Worker, data: st.DataObject) -> None:
    """With a run of ours in the folder or without."""
    name = data.draw(st.sampled_from(list(LINES)))
    names = breaking.NAMES if name == "over" else [*breaking.NAMES, *OURS]  # which --overwrite may replace
    mine = breaking.under("run", data.draw(breaking.foreign(names)))
    run = {} if data.draw(st.booleans()) else breaking.under("run", worker.bases["run"])
    run = {name: one for name, one in run.items() if not clash(name, mine)}
    line = LINES[name]
    reading = line[-1] in ("--dry-run", "--find-lr", ".") or line[0] == "info"
    writes = [] if reading else ["run(/.*)?"]
    worker.check(targets.run_command, *line, files=files_of(worker) | run | mine, writes=writes, keeps=mine)


def clash(name: str, tree: dict[str, Any]) -> bool:
    """Whether a file cannot stand beside those of a tree."""
    return any(name == other or name.startswith(f"{other}/") or other.startswith(f"{name}/") for other in tree)
