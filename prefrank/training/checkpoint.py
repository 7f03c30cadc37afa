"""The folder of a run: step checkpoints, `best`, `last`, and what is needed to go on from them.

`OUTPUT/checkpoint-000500/`, `OUTPUT/last/` are plain transformers folders with prefrank.json and a `state/` folder to
resume from; `OUTPUT/best/` is one without. Each appears whole or not at all; a full disk leaves the one before.

Surprising: a killed process may leave hidden folders, among them a whole checkpoint that had not got its name yet, or
the one it was to replace. They get their names, or go, when a run next opens the folder. What is resumed from is
checked against the list of files that was written last, so a checkpoint that was torn later, by a copy that broke off,
is passed over too.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from prefrank.errors import BadData, BadModel, BadRecipe, CannotWrite, PrefrankError
from prefrank.io.atomic import atomic_folder, recover
from prefrank.io.json_files import read_object
from prefrank.model import Network
from prefrank.model.adapter import merged
from prefrank.model.record import read_record
from prefrank.model.save import write_checkpoint
from prefrank.text import TextEncoder
from prefrank.training.events import PassedOver, Report, ignore
from prefrank.training.lora import ADAPTER, save_adapter
from prefrank.training.recipe import INHERITED, Recipe

_STATE = "state"
_FILES = "files.json"
"""In `state`: sha256 of every other file of the checkpoint, written last."""
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


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    Args:
        step: optimiser steps done.
        best: the least value of the best metric so far (accuracy counts as its negative).
        mark: the value from which early stopping counts improvements.
        waited: evaluations since then.
        evaluated: the step of the last evaluation.
        metrics: of the last evaluation, per set, as plain values.
        data: digest of the encoded training data.
        evaluation: digest of the encoded evaluation data, which `best` speaks of.
        prompts_per_step: comparisons behind one step.
    """

    data: str = ""
    evaluation: str = ""
    prompts_per_step: int = 0
    step: int = 0
    best: float | None = None
    mark: float | None = None
    waited: int = 0
    evaluated: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)

    def judge(self, value: float, improvement: float) -> bool:
        """Take in an evaluation's value, less being better; returns whether it is the best so far.

        Args:
            improvement: what early stopping asks for to count it as better.
        """
        better = self.best is None or value < self.best
        if self.mark is None or value < self.mark - improvement:
            self.mark, self.waited = value, 0
        else:
            self.waited += 1
        if better:
            self.best = value
        return better

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadData: it belongs to other training or evaluation data.
            BadRecipe: it belongs to another batch size.
        """
        if state["data"] != self.data:
            raise BadData("the training data are not those the run was started with; start anew with overwrite: true")
        if state["evaluation"] != self.evaluation:
            raise BadData(
                "the evaluation data are not those the run was started with, so its best checkpoint cannot be judged by"
                " them; start anew with overwrite: true"
            )
        if state["prompts_per_step"] != self.prompts_per_step:
            raise BadRecipe(
                f"the run was started with {state['prompts_per_step']} prompts a step, this one has"
                f" {self.prompts_per_step}; set num_devices so that they agree"
            )
        for one in fields(self):
            setattr(self, one.name, state[one.name])


def check_output(recipe: Recipe, report: Report = ignore, *, main: bool = True) -> Path | None:
    """Make the output folder, deleting no checkpoint; returns the one to resume from, None for a fresh start.

    Args:
        main: whether this process, among those of a run, sets right what an earlier run left half done.

    Raises:
        CannotWrite: the folder cannot be made or written.
        BadRecipe: it holds a run already and the recipe says neither resume nor overwrite, or resumes another recipe.
    """
    folder = Path(recipe.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a name of its own for every process that starts here
            pass
    except OSError as error:
        raise CannotWrite(f"cannot write output_dir {folder}: {error.strerror}; choose another place") from error
    if main:
        recover(folder, is_whole=lambda one: _what_is_torn(one) is None)
    there = _resumable(folder)
    if recipe.resume and there:
        newest = newest_checkpoint(folder, report)
        if newest is None:
            raise BadModel(f"no checkpoint in {folder} is whole; start anew with overwrite: true, or another folder")
        _check_same_run(recipe, newest)
        return newest
    if there and not recipe.overwrite:
        raise BadRecipe(
            f"output_dir {folder} holds a run already; set resume: true, overwrite: true, or another folder"
        )
    return None


def clear_output(recipe: Recipe) -> None:
    """Delete the checkpoints of an earlier run, once nothing can stop the new one but its own training."""
    folder = Path(recipe.output_dir)
    for old in [*step_checkpoints(folder), folder / "best", folder / "last"]:
        shutil.rmtree(old, ignore_errors=True)


def step_checkpoints(folder: Path) -> list[Path]:
    """`checkpoint-*` folders, oldest step first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def newest_checkpoint(folder: Path, report: Report = ignore) -> Path | None:
    """The whole checkpoint of the highest step that can be resumed from; torn ones are reported and passed over."""
    for newest in sorted(_resumable(folder), key=_step_of, reverse=True):
        torn = _what_is_torn(newest)
        if torn is None:
            return newest
        report(PassedOver(newest, torn))
    return None


def _resumable(folder: Path) -> list[Path]:
    return [one for one in [*step_checkpoints(folder), folder / "last"] if (one / _STATE).is_dir()]


def _what_is_torn(folder: Path) -> str | None:
    """What a checkpoint to resume from lacks, None if it is whole."""
    path = folder / _STATE / _FILES
    try:
        files = read_object(path)
    except PrefrankError:
        return f"{_STATE}/{_FILES} is missing or torn"
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if _digest(file) != digest:
            return f"{name} is torn"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _training_record(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    training = None if record is None else record.training
    step, recipe = (training.get(key) for key in ("step", "recipe")) if isinstance(training, dict) else (None, None)
    if training is None or not isinstance(step, int) or not isinstance(recipe, dict):
        raise BadModel(f"{folder} has no training record in prefrank.json; it cannot be resumed")
    return training


def _step_of(folder: Path) -> int:
    """The step of a checkpoint; one whose record is torn counts as the last, to be looked at first."""
    try:
        return int(_training_record(folder)["step"])
    except BadModel:
        return sys.maxsize


def _check_same_run(recipe: Recipe, folder: Path) -> None:
    stored, now = _training_record(folder)["recipe"], recipe.model_dump(mode="json")
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
                f"{key} is {now[key]!r} but the run in {folder.parent} was started with {before.get(key)!r};"
                " a resumed run keeps its recipe"
            )


def save_checkpoint(
    folder: Path,
    network: Network,
    encoder: TextEncoder,
    training: dict[str, Any],
    *,
    state: Mapping[str, Any] | None,
    more: Path | None = None,
    previous: Path | None,
) -> None:
    """Write one checkpoint folder, whole or not at all.

    Args:
        training: the record for prefrank.json.
        state: what resuming needs besides the weights; None for a checkpoint that is not resumed from.
        more: a folder to move into the state, and its parent to remove.
        previous: the checkpoint that stays if this one fails, for the error message.

    Raises:
        CannotWrite: the disk is full or the folder not writable; says what is kept.
    """
    try:
        with atomic_folder(folder) as temporary:
            with merged(network):
                fingerprint = write_checkpoint(temporary, network, encoder, training)
            save_adapter(temporary / ADAPTER, network, encoder, training, fingerprint=fingerprint)
            if state is not None:
                _write_state(temporary, state, more)
    except (CannotWrite, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
        kept = f"the checkpoint {previous} is kept" if previous else "there is no earlier checkpoint"
        reason = str(error) if isinstance(error, CannotWrite) else f"cannot write {folder}: is the disk full?"
        raise CannotWrite(f"{reason} ({kept})") from error


def _write_state(folder: Path, state: Mapping[str, Any], more: Path | None) -> None:
    (folder / _STATE).mkdir()
    if more is not None:
        shutil.move(more, folder / _STATE / more.name)
        shutil.rmtree(more.parent, ignore_errors=True)
    torch.save(dict(state), folder / _STATE / "state.pt")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    (folder / _STATE / _FILES).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as state.

    Raises:
        BadModel: it cannot be read.
    """
    try:
        return torch.load(folder / _STATE / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a torn file can fail anywhere in the unpickler
        raise BadModel(f"the state in {folder / _STATE} cannot be read ({error}); remove that checkpoint") from error


def remove_old(folder: Path, *, keep: int) -> None:
    """Delete all but the newest step checkpoints."""
    for old in step_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {}
    for name in ("prefrank", "torch", "transformers", "tokenizers", "accelerate", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
