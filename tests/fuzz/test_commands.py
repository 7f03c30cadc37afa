"""Command lines with odd values end with an exit code and at most one line of error, and leave their inputs alone."""

import json
import os
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import breaking, targets
from tests.fuzz.breaking import Fifo, Link
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

COMMANDS = {
    "train": ["train", "recipe.yaml", "--dry-run"],
    "score": ["score", "data.jsonl", "--model", "model", "--columns", "reply=chosen"],
    "rank": ["rank", "--model", "model", "--prompt", "how", "--reply", "mix", "--reply", "no"],
    "quantise": ["quantise", "model", "out", "--data", "data.jsonl", "--rows", "9", "--force"],
    "merge": ["merge", "adapter", "out"],
    "runs": ["runs", "runs"],
    "describe": ["data", "describe", "data.jsonl"],
    "info": ["info", "model"],
    "evaluate": ["evaluate", "--model", "model", "--data", "data.jsonl", "--no-baselines", "--resamples", "50"],
    "compare": ["compare", "run.json", "--resamples", "50"],
    "leaderboard": ["leaderboard", "boards", "--resamples", "50"],
    "card": ["card", "model", "--run", "run.json"],
    "calibrate": ["calibrate", "model", "--data", "data.jsonl"],
    "suites": ["suites"],
}
"""A valid line of each command."""
OPTIONS = ["--model", "--set", "--head", "--max-length", "--device", "--precision", "--kernels", "--threads",
           "--max-tokens", "--empty-score", "--columns", "--prompt-column", "--reply-column", "--prefix", "--prompt",
           "--reply", "--rows", "--max-flips", "--data", "--suite", "--train", "--limit", "--protocol",
           "--server-template", "--resamples", "--fact", "--facts", "--run", "--sweep", "--calibrated",
           "--pre-rendered", "--deterministic", "--json", "--find-lr", "--no-such"]  # fmt: skip
VALUES = ["", " ", "-", "--", "-1", "0", "1", "1e9", "nan", "inf", "9" * 30, "9" * 5000, "x" * 5000, "true", "null",
          "a=b", "=", "a=", "prompt=", "prompt=a.b.c", "[/red]", "[bold]x", "a\nb", "\x1b[2J", "\u202e", "\udcff",
          "💥", "..", ".", "/", "~nosuchuser", "~", "model", "model/", "data.jsonl", "data.jsonl:eval", "run.json",
          "recipe.yaml", "pipe", "loop", "empty", "scores:run.json", "scores:", "python:os:getcwd", "python:",
          "http://[::1", "http://a b", "https://", "x=model", "cpu", "cuda:9", "cpu:-1", "meta", "mps", "int8",
          "float16", "avx2", "torch", "seed=1e99", "seed=-1", "learning_rate=nan", "max_length=[1]", "heads=[]",
          "a.b=1", "output_dir=", "datasets=data.jsonl:x", "datasets=[]", "overall", "starter", "probes", "%s", "{}",
          "rm-bench=model"]  # fmt: skip
OUTPUTS = ["out", "data.jsonl", "model", "model/config.json", "run.json", "recipe.yaml", ".", "./",
           "model/../run.json", "pipe", "loop", "link.json", "inside", "nowhere/deep/out", "out.html", "out.json",
           "out.json.gz", "out.csv", "out.parquet", "out.xyz", "a\nb.json", "[red].json", "x" * 300, "hard.json",
           "boards", "boards/out.json", ""]  # fmt: skip


def files_of(worker: Worker) -> dict[str, Any]:
    """What the command lines name, and what stands in the way."""
    run = json.dumps(targets.make_run()).encode()
    recipe = json.dumps(targets.RECIPE).encode()
    files = breaking.under("model", worker.bases["ours"]) | breaking.under("adapter", worker.bases["adapter"])
    files |= breaking.under("base", worker.bases["plain"]) | breaking.under("runs/a", worker.bases["run"])
    files |= {"data.jsonl": targets.JSONL, "run.json": run, "recipe.yaml": recipe, "boards/a.json": run, "empty": b""}
    return files | {"pipe": Fifo(), "loop": Link("loop"), "link.json": Link("run.json"), "inside": Link("model")}


@fuzz
@given(data=st.data())
def test_odd_options_end_in_one_line(worker: Worker, data: st.DataObject) -> None:
    line = list(COMMANDS[data.draw(st.sampled_from(list(COMMANDS)))])
    if data.draw(st.booleans()) and len(line) > 1:
        place = data.draw(st.integers(1, len(line) - 1))
        odd = data.draw(st.sampled_from(OUTPUTS[:1] if line[place] == "out" else VALUES))
        line[place] = odd
    if data.draw(st.booleans()):
        option = data.draw(st.sampled_from(OPTIONS))
        line += [
            option,
            *([] if option.startswith(("--no", "--json", "--d")) else [data.draw(st.sampled_from(VALUES))]),
        ]
    writes = ["out(/.*)?", "model/README.md", "model/prefrank.json", "run/logs(/.*)?"]
    worker.check(targets.run_command, *line, files=files_of(worker), writes=writes)


LINES = {
    "score": (["-o", "{0}"], ["data.jsonl", "model"]),
    "evaluate": (["--json", "{0}", "--html", "{1}"], ["data.jsonl", "model"]),
    "compare": (["--html", "{0}"], ["run.json"]),
    "leaderboard": (["--html", "{0}"], ["boards"]),
    "runs": (["--plot", "{0}"], ["runs"]),
    "train": (["--set", "output_dir={0}", "--overwrite"], ["recipe.yaml", "model", "data.jsonl"]),
}
"""What is added to a command for its outputs, and what it reads."""


@fuzz
@given(
    name=st.sampled_from([*LINES, "quantise", "merge", "really train"]),
    one=st.sampled_from(OUTPUTS),
    other=st.sampled_from(OUTPUTS),
)
def test_outputs_take_the_place_of_no_input(worker: Worker, name: str, one: str, other: str) -> None:
    """Nor of a link, a pipe or a folder with other files; a plain file that is named may be replaced."""
    line = [one if word == "out" else word for word in COMMANDS[name.removeprefix("really ")]]
    added, inputs = LINES.get(name.removeprefix("really "), ([], ["model", "adapter", "base", "data.jsonl"]))
    line += [word.format(one, other) for word in added]
    if name == "really train":
        line.remove("--dry-run")
    files = files_of(worker)
    keeps = [path for path in files if path.split("/")[0] in [*inputs, "pipe", "loop", "link.json", "inside"]]
    given = [re.escape(os.path.normpath(path)) for path in (one, other)]
    writes = [
        *given,
        r"(out|nowhere|a\nb|\[red\]|x{300}|hard|run)([./].*)?",
        "boards/out.json",
        "runs/reward-model(/.*)?",
    ]
    worker.check(targets.run_command, *line, files=files, writes=writes, keeps=keeps)
