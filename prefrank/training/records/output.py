"""The output folder: what a run may replace or remove in it, and which checkpoint it resumes from.

Nothing is touched but what a run of ours wrote: checkpoints that hold nothing else, the log's two files, what trackers
wrote. Where somebody else's file stands in one of those places, the run is refused before anything is changed.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefrank.errors import BadData, BadModel, BadRecipe, CannotWrite, PrefrankError
from prefrank.io.atomic import recover
from prefrank.io.lock import FILE as LOCK
from prefrank.io.lock import locked
from prefrank.io.outputs import check_replaceable
from prefrank.model.record import RECORD
from prefrank.training.recipe import INHERITED, Recipe
from prefrank.training.records.curve import FILE as CURVE
from prefrank.training.records.curve import read_curve
from prefrank.training.records.events import Callback, Kept, PassedOver, ignore
from prefrank.training.records.run_checkpoints import training_record, what_is_torn
from prefrank.training.records.run_log import PROJECT
from prefrank.training.records.run_state import FILE as STATE
from prefrank.training.records.run_state import read_run_state

_STEP = re.compile(r"checkpoint-([0-9]+)")
_TENSORBOARD = re.compile(r"(?:[0-9.]+/)?(?:events\.out\.tfevents\.[^/]+|hparams\.yml)")
"""What TensorBoard's tracker writes into its folder."""
_FREE_ON_RESUME = {
    "eval_steps",
    "gradient_checkpointing",
    "kernels",
    "logging_steps",
    "max_memory",
    "max_tokens",
    "output_dir",
    "overwrite",
    "per_device_eval_batch_size",
    "resume",
    "save_steps",
    "save_total_limit",
    "sharding",
    "trackers",
}
"""Recipe keys that may differ when a run is resumed: they change no gradient."""


@contextmanager
def open_output(recipe: Recipe, callback: Callback = ignore, *, main: bool = True) -> Iterator[Path | None]:
    """Hold the output folder, as its only run; yields the checkpoint to resume from, None for a fresh start.

    Args:
        main: whether this process, among those of a run, is the one that writes.

    Raises:
        CannotWrite: another process holds it, or as `check_output`.
        BadRecipe: as `check_output`.
    """
    if not main:
        yield _to_resume(recipe, ignore)
        return
    folder = Path(recipe.output_dir)
    with ExitStack() as stack:
        sign = stack.enter_context(locked(folder)) if os.path.lexists(folder / LOCK) else None
        check_output(recipe)
        sign = sign or stack.enter_context(locked(folder))
        sign()
        recover(folder, is_whole=lambda checkpoint: what_is_torn(checkpoint) is None)
        yield check_output(recipe, callback)


def check_output(recipe: Recipe, callback: Callback = ignore) -> Path | None:
    """Check that a run may write its output folder, without changing it; returns the checkpoint to resume from.

    Raises:
        CannotWrite: the folder cannot be made or written, or somebody else's files, or a torn checkpoint that cannot
            be told from such, stand where the run's go.
        BadRecipe: it holds a run already and the recipe says neither resume nor overwrite, or resumes another recipe.
        BadModel: a run to resume without a whole checkpoint.
    """
    folder = Path(recipe.output_dir)
    _check_place(folder)
    if not folder.exists():
        return None
    _check_ours(folder)
    newest = _to_resume(recipe, callback)
    done = -1 if newest is None else _step_of(newest)
    for number, checkpoint in _numbered(folder):  # on resuming, those of steps that are done stay as they are
        if newest is None or (number > done and number % recipe.save_steps == 0):
            check_replaceable(checkpoint)
    return newest


def _to_resume(recipe: Recipe, callback: Callback) -> Path | None:
    folder = Path(recipe.output_dir)
    checkpoints = _resumable(folder)
    if recipe.resume and checkpoints:
        newest = newest_checkpoint(folder, callback)
        if newest is None:
            raise BadModel(f"no checkpoint in {folder} is whole; start over with overwrite: true, or another folder")
        _check_same_run(recipe, newest)
        return newest
    if checkpoints and not recipe.overwrite:
        raise BadRecipe(
            f"output_dir {folder} holds a run already; set resume: true, overwrite: true, or another folder"
        )
    return None


def _check_place(folder: Path) -> None:
    """Check that a folder exists or can be made, without making it."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(folder)
        nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        os.stat(nearest)
        why = None if nearest.is_dir() else f"{nearest} is not a folder"
        if why is None and not os.access(nearest, os.W_OK | os.X_OK):
            why = f"{nearest} may not be written"
    except OSError as error:
        why = f"{error.strerror}"
    if why:
        raise CannotWrite(f"cannot write output_dir {folder}: {why}; choose another place")


def _check_ours(folder: Path) -> None:
    """Check that only files of a run are in the places of a run's files."""
    for checkpoint in (folder / "best", folder / "last"):
        check_replaceable(checkpoint)
    readers: dict[str, Callable[[Path], Any]] = {STATE: read_run_state, CURVE: read_curve}
    for name, read in readers.items():
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            why = None if path.is_file() and not path.is_symlink() else "it is a link or no file"
            if why is None:
                read(folder)
        except BadData as error:
            why = str(error)
        if why:
            raise CannotWrite(
                f"{path} is not from a run, or is damaged ({why}); move it away, or choose another output_dir"
            )
    logs = folder / "logs"
    for path in (logs, logs / PROJECT):
        if os.path.lexists(path) and not path.is_dir():
            raise CannotWrite(f"{path} is not a folder, but logs go there; move it away, or choose another output_dir")
    for path in _in_board(folder):
        if path.is_symlink() or not _TENSORBOARD.fullmatch(path.relative_to(logs / PROJECT).as_posix()):
            raise CannotWrite(f"{path} is not a log of a run; move it away, or choose another output_dir")


def _in_board(folder: Path) -> list[Path]:
    """The files in TensorBoard's folder; none where that is a link to another."""
    board = folder / "logs" / PROJECT
    if board.is_symlink() or board.parent.is_symlink():
        return []
    return [path for path in sorted(board.rglob("*")) if path.is_symlink() or not path.is_dir()]


def clear_output(folder: Path) -> None:
    """Delete an earlier run, once nothing can stop the new one but its own training.

    Raises:
        CannotWrite: somebody else's file has come into it, and all of it stays.
    """
    _check_ours(folder)
    for checkpoint in step_checkpoints(folder):
        check_replaceable(checkpoint)
    for old in [*step_checkpoints(folder), folder / "best", folder / "last"]:
        if (old / RECORD).is_file():
            shutil.rmtree(old, ignore_errors=True)
    if not (folder / STATE).exists():
        return  # no run's logs
    for path in _in_board(folder):
        with suppress(OSError):  # a log that stays is no reason not to train
            path.unlink()
            if path.parent != folder / "logs" / PROJECT:
                path.parent.rmdir()  # once it is empty


def remove_old(folder: Path, *, keep: int) -> list[Kept]:
    """Delete all but the newest step checkpoints; returns those that stay because they hold somebody else's files."""
    stay = []
    for old in step_checkpoints(folder)[:-keep]:
        try:
            check_replaceable(old)
        except CannotWrite as error:
            stay.append(Kept(old, str(error)))
            continue
        if (old / RECORD).is_file():
            shutil.rmtree(old, ignore_errors=True)
    return stay


def step_checkpoints(folder: Path) -> list[Path]:
    """Folders named `checkpoint-STEP`, oldest step first."""
    return [path for _, path in _numbered(folder)]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The same with their steps."""
    named = ((_STEP.fullmatch(path.name), path) for path in folder.glob("checkpoint-*"))
    return sorted((int(name[1]), path) for name, path in named if name)


def newest_checkpoint(folder: Path, callback: Callback = ignore) -> Path | None:
    """The whole checkpoint of the highest step that can be resumed from; torn ones are reported and passed over."""
    for newest in sorted(_resumable(folder), key=_step_of, reverse=True):
        torn = what_is_torn(newest)
        if torn is None:
            return newest
        callback(PassedOver(newest, torn))
    return None


def _resumable(folder: Path) -> list[Path]:
    checkpoints = [*step_checkpoints(folder), folder / "last"]
    return [checkpoint for checkpoint in checkpoints if not checkpoint.is_symlink() and (checkpoint / "state").is_dir()]


def _step_of(folder: Path) -> int:
    """The step of a checkpoint; one whose record is torn counts as the last, to be looked at first."""
    try:
        return int(training_record(folder)["step"])
    except PrefrankError:
        return sys.maxsize


def _check_same_run(recipe: Recipe, folder: Path) -> None:
    stored, now = training_record(folder)["recipe"], recipe.model_dump(mode="json")
    try:
        before = Recipe.model_validate(stored).model_dump(mode="json")  # with the defaults of keys that are newer
    except ValidationError:
        before = stored
    free = _FREE_ON_RESUME - {"eval_steps"} if recipe.average_last else _FREE_ON_RESUME  # its snapshots are taken then
    # What the recipe leaves to the model, the checkpoint says as the run was started.
    left = {key for key in INHERITED if now[key] is None}
    for key in sorted(now.keys() - free - left):
        if before.get(key) != now[key]:
            raise BadRecipe(
                f"{key} is {_cut(now[key])} but the run in {folder.parent} was started with {_cut(before.get(key))};"
                " a resumed run keeps its recipe"
            )


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
