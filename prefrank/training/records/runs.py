"""Runs on disk: find them, read the state of each, and compare them.

Folders written by an older prefrank, which have a checkpoint but no run.json, are listed from the checkpoint's record.
A folder that cannot be read is left out of the list and named next to it.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prefrank.errors import BadData, NotFound, PrefrankError
from prefrank.io.json_files import Fields
from prefrank.model.record import RECORD, read_record
from prefrank.training.records.curve import Entry, evaluations_of, read_curve
from prefrank.training.records.run_state import FILE, RunState, State, read_run_state, run_state

_NOT_SETTINGS = ("output_dir", "resume", "overwrite")
"""Recipe keys that do not affect what is trained."""


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation that chose a run's `best` checkpoint.

    Args:
        step: when it was.
        name: `overall`, or the set that chose.
        accuracy: share of pairs in the right order.
        interval: 95 % of the accuracy.
        log_loss: mean in nats a comparison.
        log_loss_interval: 95 % of it; None in runs that did not record it.
        comparisons: how many were scored.
        metric: log_loss or accuracy, which of them chose.
    """

    step: int
    name: str
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    log_loss_interval: tuple[float, float] | None
    comparisons: int
    metric: str

    @property
    def loss(self) -> float:
        """The number whose least value is best."""
        return self.log_loss if self.metric == "log_loss" else -self.accuracy

    @property
    def half_width(self) -> float | None:
        """Half of the metric's 95 % interval."""
        interval = self.log_loss_interval if self.metric == "log_loss" else self.interval
        return None if interval is None else (interval[1] - interval[0]) / 2


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One run's folder, read.

    Args:
        name: its path, as it was found.
        folder: of the run.
        state: finished, running, stopped (interrupted or killed) or failed.
        error: why it stopped or failed, if that is known.
        step: steps done.
        steps: of the whole run.
        data: the training sources.
        best: None where nothing was evaluated.
        spent: wall_s, cpu_s, energy_kwh and more over all sessions; empty where it was not recorded.
        recipe: as plain values.
        curve: every entry.
    """

    name: str
    folder: Path
    state: State
    error: str | None
    step: int
    steps: int
    data: tuple[str, ...]
    best: Best | None
    spent: Mapping[str, Any]
    recipe: Mapping[str, Any]
    curve: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the curve, as plain values."""
        kept = {name: getattr(self, name) for name in self.__slots__ if name not in ("curve", "folder", "best")}
        return {**kept, "folder": str(self.folder), "best": self.best and asdict(self.best)}


class Skipped(NamedTuple):
    """A run's folder that cannot be read.

    Args:
        folder: of the run.
        reason: one line, which names file and key.
    """

    folder: Path
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"folder": str(self.folder), "reason": self.reason}


class Found(NamedTuple):
    """The runs found in some folders.

    Args:
        runs: those that can be read.
        skipped: those that cannot.
    """

    runs: list[TrainingRun]
    skipped: list[Skipped]


def find_runs(places: Iterable[str | Path]) -> Found:
    """The runs in some folders: each place is a run itself, or is searched for runs, sorted by name.

    Raises:
        NotFound: a place that is no folder, or no run in any of them.
        BadData: the only place is a run that cannot be read.
    """
    looked = [Path(place) for place in places]
    inside = {os.path.realpath(folder): folder for place in looked for folder in _inside(place)}
    if not inside:
        raise NotFound(f"no run in {', '.join(map(str, looked))}; a run's folder holds run.json or last/prefrank.json")
    result = Found([], [])
    for folder in inside.values():
        try:
            result.runs.append(read_run(folder))
        except PrefrankError as error:
            if looked == [folder]:
                raise
            result.skipped.append(Skipped(folder, str(error)))
    return result


def _inside(place: Path) -> list[Path]:
    try:
        if not place.is_dir():
            raise NotFound(f"there is no folder {place}; give the folder of a run, or one that holds runs")
        return (
            [place]
            if _is_run(place)
            else sorted(folder for folder in place.rglob("*") if folder.is_dir() and _is_run(folder))
        )
    except OSError as error:
        if isinstance(error, PrefrankError):
            raise
        raise NotFound(f"{place} cannot be searched for runs: {error.strerror}") from None


def _is_run(folder: Path) -> bool:
    return (folder / FILE).is_file() or (folder / "last" / RECORD).is_file()


def read_run(folder: Path) -> TrainingRun:
    """Read the folder of one run.

    Raises:
        BadData: a state or a curve that cannot be read.
        BadModel: a record of `last`, of a run without state, that cannot.
    """
    state = read_run_state(folder) or _from_checkpoint(folder)
    curve = tuple(read_curve(folder))
    return TrainingRun(
        name=str(folder),
        folder=folder,
        state=state.state,
        error=state.error,
        step=state.step,
        steps=state.steps,
        data=state.data,
        best=_best(state.recipe, curve),
        spent=state.spent,
        recipe=state.recipe,
        curve=curve,
    )


def _from_checkpoint(folder: Path) -> RunState:
    """The state of a run without run.json, from the record of `last`; empty where that has none."""
    record = read_record(folder / "last")
    training = Fields((record and record.training) or {}, str(folder / "last" / RECORD), "training", BadData)
    done = training.integer("step", 0) >= training.integer("steps", 1)
    return run_state(training, ended="finished" if done else "stopped")


def _best(recipe: Mapping[str, Any], curve: Sequence[Entry]) -> Best | None:
    chosen = [entry for entry in evaluations_of(curve) if entry["best"]]
    if not chosen:
        return None
    metrics: dict[str, Any] = chosen[-1]["judged"]
    interval = metrics.get("log_loss_interval")
    return Best(
        step=chosen[-1]["step"],
        name=recipe.get("best_set") or "overall",
        accuracy=metrics["accuracy"],
        interval=tuple(metrics["interval"]),
        log_loss=metrics["log_loss"],
        log_loss_interval=tuple(interval) if interval else None,
        comparisons=metrics["comparisons"],
        metric=recipe.get("best_metric") or "log_loss",
    )


def differing_keys(runs: Sequence[TrainingRun]) -> dict[str, list[Any]]:
    """Recipe keys that are not the same in all runs: key -> each run's value (None where it has none)."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe if key not in _NOT_SETTINGS)
    values = {key: [run.recipe.get(key) for run in runs] for key in keys}
    return {key: each for key, each in values.items() if len({json.dumps(value, sort_keys=True) for value in each}) > 1}


def rank_runs(runs: Iterable[TrainingRun]) -> list[TrainingRun]:
    """Sorted by their best metric, the best first; runs without one last."""
    return sorted(runs, key=lambda run: math.inf if run.best is None else run.best.loss)


def undecided(run: Best, best: Best) -> bool:
    """Whether a run is indistinguishable from the best one: the 95 % interval of their difference holds 0.

    The errors are added as if the two had been measured on different comparisons. On the same ones the difference is
    better known than that, so this calls too many runs undecided rather than too few.
    """
    if run.half_width is None or best.half_width is None:
        return False
    return abs(run.loss - best.loss) <= math.hypot(run.half_width, best.half_width)
