"""A sweep: one recipe and many changes to it, run one after the other, each in a subfolder named after its changes.

Running the same sweep again continues it: finished runs are kept, stopped runs resumed, failed ones tried again. A
failure of one run is recorded and the sweep goes on. `sweep.json` holds the results so far.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, BadRecipe, CannotWrite, Interrupted, NotFound, PrefrankError
from prefrank.io.atomic import write_file
from prefrank.io.json_files import parse_json
from prefrank.io.lock import locked
from prefrank.io.plain_files import read_bytes
from prefrank.training.loop.signals import stop_cleanly
from prefrank.training.loop.train import train
from prefrank.training.recipe import Recipe
from prefrank.training.recipe_file import RecipeValues, make_recipe
from prefrank.training.records.events import Callback, ignore
from prefrank.training.records.run_state import FILE as STATE
from prefrank.training.records.run_state import read_run_state
from prefrank.training.records.runs import TrainingRun, rank_runs, read_run, undecided
from prefrank.training.tools.find_rate import check_alone

FILE = "sweep.json"
_RESERVED = ("output_dir", "resume", "overwrite", "best_metric", "best_set")
_LONGEST_NAME = 100
_ROW = {"name", "changes", "run", "error"}
"""Keys of each row of `sweep.json`."""


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One run of a sweep.

    Args:
        name: of its subfolder.
        changes: key -> value.
        run: what its folder tells; None if it failed before its first step.
        error: why it failed; None if it did not.
        undecided: whether it cannot be told from the best run, which is undecided itself.
    """

    name: str
    changes: Mapping[str, Any]
    run: TrainingRun | None
    error: str | None
    undecided: bool

    def to_json(self) -> dict[str, Any]:
        row = {"name": self.name, "changes": dict(self.changes), "error": self.error, "undecided": self.undecided}
        return row | {"run": self.run and self.run.to_json()}


@stop_cleanly()
def run_sweep(
    base: RecipeValues,
    changes: Sequence[Mapping[str, Any]],
    *,
    callback: Callback = ignore,
    next_run: Callable[[str, int, int], None] = lambda name, number, total: None,
) -> list[SweepRow]:
    """Train every variant of a recipe.

    Args:
        base: the recipe's values; its output_dir holds the subfolders, with `overwrite` every run starts anew.
        changes: of each run, as `load_sweep` gives them.
        callback: called with the events of all runs.
        next_run: called before each run with its name, its number from 1, and how many there are.

    Returns:
        A row for each run, best first.

    Raises:
        BadRecipe: changes that make no recipe, or runs that cannot be compared; before the first run.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, after saving; the same call goes on.
    """
    check_alone("a sweep")
    recipes = _recipes(base, changes)
    folder = Path(next(iter(recipes.values())).output_dir).parent
    _check_own(folder / FILE)
    with locked(folder) as sign:
        sign()
        return _train_all(recipes, changes, callback, next_run)


def _check_own(path: Path) -> None:
    """Check that `sweep.json` replaces only results of an earlier sweep."""
    if not os.path.lexists(path):
        return
    try:
        rows = parse_json(read_bytes(path, BadData), path, BadData)
        is_ours = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= _ROW for row in rows)
    except (BadData, NotFound):
        is_ours = False
    if not is_ours or path.is_symlink():
        raise CannotWrite(f"{path} is not of a sweep, or torn; move it away, or choose another output_dir")


def _train_all(
    recipes: Mapping[str, Recipe],
    changes: Sequence[Mapping[str, Any]],
    callback: Callback,
    next_run: Callable[[str, int, int], None],
) -> list[SweepRow]:
    errors: dict[str, str] = {}
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        if not recipe.overwrite and _is_finished(recipe):
            continue
        next_run(name, number, len(recipes))
        try:
            train(recipe, callback=callback)
        except (Interrupted, KeyboardInterrupt) as error:
            _results(recipes, changes, errors)
            stopped = Interrupted(f"the sweep was stopped in its run {name}; the same command goes on")
            if isinstance(error, Interrupted):
                stopped.exit_code = error.exit_code
            raise stopped from error
        except Exception as error:  # whatever fails one run is no reason to lose the others
            text = " ".join(str(error).split())
            errors[name] = text if isinstance(error, PrefrankError) else f"{type(error).__name__}: {text}"
        _results(recipes, changes, errors)
    return _results(recipes, changes, errors)


def _recipes(base: RecipeValues, changes: Sequence[Mapping[str, Any]]) -> dict[str, Recipe]:
    """Subfolder name -> checked recipe."""
    first = make_recipe(base.values, where=base.where, otherwise=base.otherwise)
    recipes: dict[str, Recipe] = {}
    for each in changes:
        for key in _RESERVED:
            if key in each:
                raise BadRecipe(
                    f"the sweep changes {key}; its runs are named and compared by it, so set it in the recipe"
                )
        name = run_name(each)
        if name in recipes:
            raise BadRecipe(f"the sweep has the run {name} twice; keep one")
        own = {"output_dir": str(Path(first.output_dir) / name), "resume": not first.overwrite}
        where = {**base.where, **dict.fromkeys(each, f"the sweep's run {name}: ")}
        recipes[name] = make_recipe({**base.values, **each, **own}, where=where, otherwise=base.otherwise)
    if len({recipe.loss for recipe in recipes.values()}) > 1 and first.best_metric == "log_loss":
        raise BadRecipe(
            "the sweep changes loss, and log losses of two likelihoods say nothing; set best_metric: accuracy"
        )
    return recipes


def run_name(changes: Mapping[str, Any]) -> str:
    """A folder's name for some changes, such as `learning_rate=1e-05,seed=1`; long ones end in a hash of the whole."""
    text = ",".join(f"{key}={_short(value)}" for key, value in changes.items()) or "as-it-is"
    name = re.sub(r"[^\w.,=+\-]+", "_", text)
    short = name.encode()[:_LONGEST_NAME].decode(errors="ignore")  # file systems count bytes
    if short == name == text:
        return name
    digest = hashlib.sha256(json.dumps(dict(changes), sort_keys=True).encode()).hexdigest()[:8]
    return f"{short}-{digest}"


def _short(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _is_finished(recipe: Recipe) -> bool:
    """Whether its folder holds a run of this very recipe that came to its end."""
    try:
        state = read_run_state(Path(recipe.output_dir))
    except BadData:  # `train` says so
        return False
    is_over = state is not None and state.state == "finished"
    return is_over and state is not None and _plain(state.recipe) == _plain(recipe.model_dump(mode="json"))


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key not in ("output_dir", "resume", "overwrite")}


def _results(
    recipes: Mapping[str, Recipe], changes: Sequence[Mapping[str, Any]], errors: Mapping[str, str]
) -> list[SweepRow]:
    """Rows of all runs that have begun or failed, best first; written to sweep.json too."""
    faults = dict(errors)
    runs = {name: _run(recipe, name, faults) for name, recipe in recipes.items()}
    for name, run in runs.items():
        if run is not None and run.state == "failed":
            faults.setdefault(name, run.error or "it failed")
    sound = [run for name, run in runs.items() if run is not None and name not in faults]
    ranked = rank_runs(sound)
    best = ranked[0].best if ranked else None
    order = {run.name: place for place, run in enumerate(ranked)}
    rows = []
    for (name, run), each in zip(runs.items(), changes, strict=True):
        close = run in sound and run.best is not None and best is not None and undecided(run.best, best)
        if run is not None or name in faults:
            rows.append(SweepRow(name, each, run, faults.get(name), close))
    rows.sort(key=lambda row: order.get(row.run.name, len(order)) if row.run else len(order))
    folder = Path(next(iter(recipes.values())).output_dir).parent
    text = json.dumps([row.to_json() for row in rows], indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / FILE, text.encode())
    return rows


def _run(recipe: Recipe, name: str, faults: dict[str, str]) -> TrainingRun | None:
    """A run read from its folder; if that fails, the reason becomes a fault, unless there is one already."""
    folder = Path(recipe.output_dir)
    try:
        return read_run(folder) if (folder / STATE).is_file() else None
    except PrefrankError as error:
        faults.setdefault(name, str(error))
        return None
