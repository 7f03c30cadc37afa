"""What a run writes while it goes: `run.json` (its state), `curve.jsonl`, and what trackers receive.

`run.json` says "running" until the run ends, so a run that was killed looks alive until its process is checked, as
`run_state.py` does. A resumed run continues the trackers' own runs and does not resend steps they already have.
"""

import json
import os
import re
import secrets
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from accelerate import Accelerator

from prefrank.errors import BadRecipe, CannotWrite, Interrupted
from prefrank.io.atomic import write_file
from prefrank.model.hardware import hardware
from prefrank.training.loop.best import judged
from prefrank.training.recipe import Recipe
from prefrank.training.records.curve import Curve, thin
from prefrank.training.records.events import SetMetrics, Started, StepDone
from prefrank.training.records.run_state import FILE, read_run_state
from prefrank.training.records.spent import Meter

PROJECT = "prefrank"
"""The trackers' name of what the runs belong to, and of TensorBoard's folder in `logs`."""
_PACKAGES = {
    "tensorboard": "prefrank[train]",
    "wandb": "prefrank[wandb]",
    "trackio": "prefrank[trackio]",
    "mlflow": "prefrank[mlflow]",
}


def check_trackers(recipe: Recipe) -> None:
    """Raise BadRecipe for a tracker that is not installed."""
    for name in recipe.trackers:
        if find_spec(name) is None:
            raise BadRecipe(
                f"trackers names {name}, which is missing; pip install '{_PACKAGES[name]}' or set trackers: none"
            )


class RunLog:
    """The log of one run: means over `logging_steps` steps, and evaluations. It writes on the main process only."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self.recipe, self._accelerator = recipe, accelerator
        self._folder = Path(recipe.output_dir)
        self._main = accelerator.is_main_process
        self._waiting: list[StepDone] = []
        self._sent: set[tuple[int, bool]] = set()
        self._state: dict[str, Any] = {}

    @contextmanager
    def open(self, started: Started) -> Iterator[None]:
        """Keep the log open inside the block, and record how the run ended."""
        if self._main:
            self._start(started)
        self._start_trackers(resumed=started.first_step > 0)
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)  # a signal is none
            self._end("stopped" if stopped else "failed", " ".join(str(error).split()) or type(error).__name__)
            raise
        self._end("finished", None)

    def _start(self, started: Started) -> None:
        before = read_run_state(self._folder) if started.first_step else None
        self._curve = Curve(self._folder, first_step=started.first_step)
        self._sent = {(entry["step"], "evaluation" in entry) for entry in self._curve.lost}
        self._meter = Meter(before.spent if before else {})
        me = psutil.Process()
        self._state = {
            "state": "running",
            "error": None,
            "started": (before and before.started) or _now(),
            "process": {"host": socket.gethostname(), "pid": me.pid, "created": me.create_time()},
            **asdict(started),
            "step": started.first_step,
            "processes": self._accelerator.num_processes,
            "recipe": self.recipe.model_dump(mode="json"),
            "hardware": hardware(),
            "trackers": dict(before.trackers if before else {}),
        }
        self._write()

    def step(self, done: StepDone) -> None:
        """Log one step."""
        if not self._main:
            return
        self._waiting.append(done)
        self._state["step"] = done.step
        if done.step % self.recipe.logging_steps == 0:
            self._flush()
            self._write()

    def evaluation(self, step: int, metrics: Mapping[str, SetMetrics], *, best: bool) -> None:
        """Log one evaluation: `overall` and every set by its name."""
        if not self._main:
            return
        self._flush()
        chosen_by = judged(
            self.recipe, {name: set_metrics for name, set_metrics in metrics.items() if name != "overall"}
        )
        entry = {"step": step, "best": best, "judged": asdict(chosen_by), "wall_s": self._meter.totals()["wall_s"]}
        self._curve.add({**entry, "evaluation": {name: asdict(set_metrics) for name, set_metrics in metrics.items()}})
        values = {f"eval/{_tag(name)}/log_loss": set_metrics.log_loss for name, set_metrics in metrics.items()}
        values |= {f"eval/{_tag(name)}/accuracy": set_metrics.accuracy for name, set_metrics in metrics.items()}
        self._send(values, step, evaluation=True)
        self._write()

    def record(self) -> dict[str, Any]:
        """For a checkpoint's record: hardware, what the run has spent, and its curve, thinned."""
        self._flush()
        self._write()
        return {
            "started": self._state["started"],
            "hardware": self._state["hardware"],
            "spent": self._state["spent"],
            "curve": thin(self._curve.entries),
        }

    def _flush(self) -> None:
        """Turn the steps that wait into one entry: their means, and the last one's rate and speed."""
        if not self._waiting:
            return
        last, count = self._waiting[-1], len(self._waiting)
        values = {
            "loss": sum(step.loss for step in self._waiting) / count,
            "accuracy": sum(step.accuracy for step in self._waiting) / count,
            "grad_norm": sum(step.grad_norm for step in self._waiting) / count,
            "learning_rate": last.learning_rate,
            "tokens_per_s": last.tokens_per_s,
        }
        tokens, computed = sum(step.tokens for step in self._waiting), sum(step.computed for step in self._waiting)
        if 0 < computed < tokens:
            values["tokens_shared"] = 1 - computed / tokens
        self._waiting.clear()
        self._curve.add({"step": last.step, **values, "wall_s": self._meter.totals()["wall_s"]})
        self._send({f"train/{name}": value for name, value in values.items()}, last.step, evaluation=False)

    def _start_trackers(self, *, resumed: bool) -> None:
        names = self.recipe.trackers
        if not names:
            return
        ids = self._state.get("trackers", {})
        values = self.recipe.model_dump(mode="json")
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()}
        options = {name: self._options(name, ids.get(name), ids) for name in names}
        # a run that goes on has its configuration already; mlflow refuses another one
        self._accelerator.init_trackers(PROJECT, config=None if resumed else plain, init_kwargs=options)
        if self._main:
            if "mlflow" in names:
                ids["mlflow"] = self._accelerator.get_tracker("mlflow", unwrap=True).info.run_id
            self._write()

    def _options(self, tracker: str, known: str | None, ids: dict[str, str]) -> dict[str, Any]:
        """What a tracker needs to continue the run of a known id, or to start one."""
        title = os.path.basename(os.path.realpath(self._folder))
        match tracker:
            case "wandb":
                ids["wandb"] = known or secrets.token_hex(4)
                place = self._folder / "logs"
                place.mkdir(exist_ok=True)  # wandb falls back on a temporary folder where there is none
                return {"id": ids["wandb"], "name": title, "resume": "allow", "dir": str(place)}
            case "trackio":
                ids["trackio"] = known or f"{title}-{secrets.token_hex(4)}"
                return {"name": ids["trackio"], "resume": "allow"}
            case "mlflow":
                return {"run_id": known} if known else {"run_name": title}
        return {}

    def _send(self, values: dict[str, float], step: int, *, evaluation: bool) -> None:
        if self.recipe.trackers and (step, evaluation) not in self._sent:
            with suppress(OSError):  # as with our own log: a full disk is for the checkpoints to report
                self._accelerator.log(values, step=step)

    def _end(self, state: str, error: str | None) -> None:
        if not self._main:
            return
        self._flush()
        self._state |= {"state": state, "error": error}
        self._meter.stop()
        self._write()

    def _write(self) -> None:
        self._state |= {"updated": _now(), "spent": self._meter.totals()}
        text = json.dumps(self._state, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            write_file(self._folder / FILE, text.encode())
        except CannotWrite:
            return  # the next line of the log tries again; a full disk is for the checkpoints to report


def _tag(name: str) -> str:
    """The name of an evaluation set in a form that trackers accept: mlflow takes no `..`, `//` or `#`."""
    return re.sub(r"[^\w.:\- ]", "_", name.strip("./").replace("/", "."))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Speed:
    """Tokens and seconds per step over the last 20 steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=21)
        self.pause()

    def pause(self) -> None:
        """Start measuring again, as after an evaluation."""
        self._steps.clear()
        self._steps.append((time.perf_counter(), 0))

    def step(self, tokens: int) -> tuple[float, float]:
        """Count one step; returns (tokens per second, seconds per step)."""
        self._steps.append((time.perf_counter(), tokens))
        seconds = max(self._steps[-1][0] - self._steps[0][0], 1e-9)
        return sum(count for _, count in list(self._steps)[1:]) / seconds, seconds / (len(self._steps) - 1)
