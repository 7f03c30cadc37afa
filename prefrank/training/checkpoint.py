"""The folder of a run: step checkpoints, `best`, `last`, and what is needed to go on from them.

`OUTPUT/checkpoint-000500/`, `OUTPUT/last/` are plain transformers folders with prefrank.json and a `state/` folder to
resume from; `OUTPUT/best/` is one without. Each appears whole or not at all; a full disk leaves the one before.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from prefrank.errors import BadData, BadModel, BadRecipe, CannotWrite, PrefrankError
from prefrank.model import Network, atomic_folder
from prefrank.model.record import read_record, write_checkpoint
from prefrank.text import TextEncoder
from prefrank.training.recipe import Recipe

_STATE = "state"
_FREE_ON_RESUME = {
    "eval_steps",
    "gradient_checkpointing",
    "logging_steps",
    "max_tokens",
    "output_dir",
    "overwrite",
    "per_device_eval_batch_size",
    "resume",
    "save_steps",
    "save_total_limit",
    "trackers",
}
"""Recipe keys that may differ when a run is resumed: they change no gradient."""


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    Args:
        step: optimiser steps done.
        best: the best value of the best metric so far.
        waited: evaluations since then.
        evaluated: the step of the last evaluation.
        metrics: of the last evaluation, per set, as plain values.
        data: digest of the encoded training data.
        prompts_per_step: comparisons behind one step.
    """

    data: str = ""
    prompts_per_step: int = 0
    step: int = 0
    best: float | None = None
    waited: int = 0
    evaluated: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadData: it belongs to other training data or another batch size.
        """
        if state["data"] != self.data:
            raise BadData("the training data are not those the run was started with; start anew with overwrite: true")
        if state["prompts_per_step"] != self.prompts_per_step:
            raise BadRecipe(
                f"the run was started with {state['prompts_per_step']} prompts a step, this one has"
                f" {self.prompts_per_step}; set num_devices so that they agree"
            )
        for one in fields(self):
            setattr(self, one.name, state[one.name])


def check_output(recipe: Recipe) -> Path | None:
    """Make the output folder, deleting nothing; returns the checkpoint to resume from, None for a fresh start.

    Raises:
        CannotWrite: the folder cannot be made or written.
        BadRecipe: it holds a run already and the recipe says neither resume nor overwrite, or resumes another recipe.
    """
    folder = Path(recipe.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotWrite(f"cannot write output_dir {folder}: {error.strerror}; choose another place") from error
    newest = newest_checkpoint(folder)
    if recipe.resume and newest is not None:
        _check_same_run(recipe, newest)
        return newest
    if newest is not None and not recipe.overwrite:
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


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step that can be resumed from."""
    candidates = [one for one in [*step_checkpoints(folder), folder / "last"] if (one / _STATE).is_dir()]
    return max(candidates, key=_step_of, default=None)


def _training_record(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    if record is None or record.training is None or not {"step", "recipe"} <= set(record.training):
        raise BadModel(f"{folder} has no training record in prefrank.json; it cannot be resumed")
    return record.training


def _step_of(folder: Path) -> int:
    return int(_training_record(folder)["step"])


def _check_same_run(recipe: Recipe, folder: Path) -> None:
    before, now = _training_record(folder)["recipe"], recipe.model_dump(mode="json")
    for key in sorted(now.keys() - _FREE_ON_RESUME):
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
    state_of: Accelerator | None,
    previous: Path | None,
) -> None:
    """Write one checkpoint folder, whole or not at all.

    Args:
        training: the record for prefrank.json.
        state_of: also write what resuming needs: optimiser, generators, and the objects registered with it.
        previous: the checkpoint that stays if this one fails, for the error message.

    Raises:
        CannotWrite: the disk is full or the folder not writable; says what is kept.
    """
    try:
        with atomic_folder(folder) as temporary:
            write_checkpoint(temporary, network, encoder, training)
            if state_of is not None:
                state_of.save_state(str(temporary / _STATE))
    except (CannotWrite, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
        kept = f"the checkpoint {previous} is kept" if previous else "there is no earlier checkpoint"
        reason = str(error) if isinstance(error, CannotWrite) else f"cannot write {folder}: is the disk full?"
        raise CannotWrite(f"{reason} ({kept})") from error


def load_state(folder: Path, accelerator: Accelerator) -> None:
    """Restore optimiser, generators and registered objects.

    Raises:
        BadModel: state files that are missing or torn.
    """
    try:
        accelerator.load_state(str(folder / _STATE))
    except PrefrankError:
        raise
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
