"""`run.json`, read back: the state of a run as its log wrote it, with every value that is used checked.

A state of "running" counts only while the process that wrote it exists; a run whose process is gone was stopped.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import psutil

from prefrank.errors import BadData
from prefrank.io.json_files import Fields, read_fields

FILE = "run.json"
State = Literal["finished", "running", "stopped", "failed"]
_LEVELS = 50
"""Lists and objects inside each other in a value that is passed on as it is."""
_MOST = 1e18
"""Of seconds, bytes, and the like."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run.

    Args:
        state: finished, running, stopped (interrupted or killed) or failed.
        error: why it stopped or failed, if that is known.
        started: when, as text.
        step: steps done.
        steps: of the whole run.
        recipe: as plain values.
        spent: wall_s, cpu_s, energy_kwh and more over all sessions; empty where it was not recorded.
        trackers: tracker -> its own id of the run.
        data: the training sources.
    """

    state: State
    error: str | None
    started: str | None
    step: int
    steps: int
    recipe: Mapping[str, Any]
    spent: Mapping[str, Any]
    trackers: Mapping[str, str]
    data: tuple[str, ...]


def read_run_state(folder: Path) -> RunState | None:
    """A run's `run.json`; None where there is none.

    Raises:
        BadData: it is torn, or not of a run.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    fields = read_fields(path, BadData)
    return run_state(fields, ended=_ended(fields))


def _ended(fields: Fields) -> State:
    stated = fields.text("state")
    if stated not in get_args(State):
        fields.refuse("state", "finished, running, stopped or failed")
    process = fields.object("process", None)
    alive = stated != "running" or (process is not None and _is_alive(process))
    return cast(State, stated) if alive else "stopped"


def _is_alive(process: Fields) -> bool:
    """Whether a process still exists; on another machine that is unknown, and assumed."""
    host, pid = process.text("host"), process.integer("pid", most=(1 << 31) - 1)
    created = process.number("created")
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(pid).create_time() - created) < 1.0
    except psutil.Error:
        return False


def run_state(fields: Fields, *, ended: State) -> RunState:
    """The state in a run's run.json, or in the training record of its checkpoint.

    Raises:
        BadData: a value of another type than anybody ever wrote.
    """
    recipe = fields.object("recipe", None) or Fields({}, fields.file, fields.place("recipe"), fields.error)
    recipe.text("best_set", None)
    if recipe.text("best_metric", "log_loss") not in ("log_loss", "accuracy"):
        recipe.refuse("best_metric", "log_loss or accuracy")
    _check_flat(recipe)
    spent = fields.object("spent", None) or Fields({}, fields.file, fields.place("spent"), fields.error)
    for key in spent:
        if key == "energy_missing":
            spent.text(key, None)
        else:
            spent.number(key, None, least=0.0, most=_MOST)
    trackers = fields.object("trackers", None)
    return RunState(
        ended,
        fields.text("error", None),
        fields.text("started", None),
        fields.integer("step", 0),
        fields.integer("steps", 0),
        dict(recipe),
        dict(spent),
        {} if trackers is None else {key: trackers.text(key) for key in trackers},
        tuple(dataset.text("source") for dataset in recipe.objects("datasets", ())),
    )


def _check_flat(recipe: Fields) -> None:
    """See that no value is nested so deeply that writing it again would fail."""
    for key, value in recipe.items():
        level, inside = 0, [value]
        while inside := [part for value in inside if isinstance(value, list | dict) for part in _parts(value)]:
            level += 1
            if level > _LEVELS:
                recipe.refuse(key, f"a value of at most {_LEVELS} levels")


def _parts(value: list[Any] | dict[str, Any]) -> list[Any]:
    return value if isinstance(value, list) else list(value.values())
