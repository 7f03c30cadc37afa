"""A run's checkpoints: written, verified, and read back to resume from. The rest of the folder is `output.py`'s.

`OUTPUT/checkpoint-000500/` and `OUTPUT/last/` are plain transformers folders with prefrank.json and a `state/` folder
to resume from; `OUTPUT/best/` has no state. Each appears whole or not at all; a full disk leaves the previous one.

A killed process may leave hidden folders: a finished checkpoint that was not renamed yet, or the one it was about to
replace. The next run that opens the output folder renames or removes them. A checkpoint is verified against the list of
files that was written last, so one that was damaged later, by an interrupted copy for example, is passed over too.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from prefrank.errors import BadData, BadModel, BadRecipe, CannotWrite, PrefrankError, short
from prefrank.io.atomic import atomic_folder
from prefrank.io.json_files import read_object
from prefrank.io.plain_files import check_plain
from prefrank.model import Network
from prefrank.model.adapter import merged
from prefrank.model.record import read_record
from prefrank.model.save import write_checkpoint
from prefrank.text import TextEncoder
from prefrank.training.loop.lora import ADAPTER, save_adapter

_STATE = "state"
_TENSORS = "state.pt"
_FILES = "files.json"
"""In `state`: sha256 of every other file of the checkpoint, written last."""


@dataclass
class Progress:
    """The progress of a run; saved with every checkpoint.

    Args:
        step: optimizer steps done.
        best: the least value of the best metric so far (accuracy counts as its negative).
        mark: the value from which early stopping counts improvements.
        waited: evaluations since then.
        evaluated: the step of the last evaluation.
        metrics: of the last evaluation, per set, as plain values.
        scores: of the last evaluation, per head, as `score_record` gives them; states of older runs have none.
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
    scores: dict[str, Any] = field(default_factory=dict)

    def judge(self, value: float, improvement: float) -> bool:
        """Record an evaluation's value, lower being better; returns whether it is the best so far.

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
        """Restore a saved state.

        Raises:
            BadData: it belongs to other training or evaluation data.
            BadRecipe: it belongs to another batch size.
        """
        if state["data"] != self.data:
            raise BadData("the training data are not those the run was started with; start over with overwrite: true")
        if state["evaluation"] != self.evaluation:
            raise BadData(
                "the evaluation data are not those the run was started with, so its best checkpoint cannot be judged by"
                " them; start over with overwrite: true"
            )
        if state["prompts_per_step"] != self.prompts_per_step:
            raise BadRecipe(
                f"the run was started with {state['prompts_per_step']} prompts a step, this one has"
                f" {self.prompts_per_step}; set num_devices so that they agree"
            )
        for attribute in fields(self):
            value = state.get("scores", {}) if attribute.name == "scores" else state[attribute.name]
            if attribute.name in ("best", "mark"):
                fits = value is None or type(value) is float
            elif attribute.name in ("step", "waited", "evaluated", "prompts_per_step"):
                fits = type(value) is int and value >= 0
            else:
                fits = isinstance(value, dict if attribute.name in ("metrics", "scores") else str)
            if not fits:
                raise BadModel(f"the saved progress says {attribute.name} is {short(value)}; remove that checkpoint")
            setattr(self, attribute.name, value)


def what_is_torn(folder: Path) -> str | None:
    """What is wrong with a checkpoint to resume from; None if it is intact. Only files inside it are read."""
    path = folder / _STATE / _FILES
    try:
        files = read_object(path)
    except PrefrankError:
        return f"{_STATE}/{_FILES} is missing or damaged"
    if f"{_STATE}/{_TENSORS}" not in files:
        return f"{_STATE}/{_FILES} lists no {_TENSORS}"
    for name, digest in files.items():
        try:
            if not _is_inside(folder, name):
                return f"{_STATE}/{_FILES} lists {short(name)}, which is not a file of it"
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _digest(folder / name) != digest:
                return f"{name} is torn"
        except OSError as error:
            return f"{short(name)} cannot be read: {error.strerror}"
    try:
        training_record(folder)
    except PrefrankError as error:
        return str(error)
    return None


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a name leads to a file of the folder itself, over no link."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        return False
    return not any(folder.joinpath(*parts[: number + 1]).is_symlink() for number in range(len(parts)))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def training_record(folder: Path) -> dict[str, Any]:
    """The training record of a checkpoint to resume from: `step`, `recipe` and more.

    Raises:
        BadModel: nothing, or nonsense.
    """
    record = read_record(folder)
    training = None if record is None else record.training
    step, recipe = (training.get(key) for key in ("step", "recipe")) if isinstance(training, dict) else (None, None)
    if training is None or type(step) is not int or step < 0 or not isinstance(recipe, dict):
        raise BadModel(f"{folder} has no training record in prefrank.json; it cannot be resumed")
    return training


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
        more: a folder to move into the state.
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
    torch.save(dict(state), folder / _STATE / _TENSORS)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    (folder / _STATE / _FILES).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as state.

    Raises:
        BadModel: it cannot be read, or is nothing that was ever saved.
    """
    place = folder / _STATE / _TENSORS
    check_plain(place, BadModel)
    try:
        state = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a torn file can fail anywhere in the unpickler
        why = " ".join(str(error).split())[:120]
        raise BadModel(f"the state in {folder / _STATE} cannot be read ({why}); remove that checkpoint") from error
    lacks = [key for key in ("optimizer", "progress", "average", "loss") if not _is_mapping(state, key)]
    if lacks:
        raise BadModel(f"the state in {folder / _STATE} has no {lacks[0]}; remove that checkpoint")
    return dict(state)


def with_own_names(state: Mapping[str, Any], network: Network) -> dict[str, Any]:
    """A state whose parameters are called as the network's: those of a decoder that ran through transformers when it
    was saved have one `model.` more.
    """
    own = {name for name, _ in network.named_parameters()}

    def renamed(key: Any) -> Any:
        inner = key.removeprefix("model.") if isinstance(key, str) else key
        return inner if key not in own and inner in own else key

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return {key: walk(value) for key, value in state.items()}


def _is_mapping(state: Any, key: str) -> bool:
    return isinstance(state, dict) and isinstance(state.get(key), dict)


@contextmanager
def state_of(folder: Path) -> Iterator[None]:
    """Inside the block, a state that does not fit the run raises a one-line error.

    Raises:
        BadModel: what the block fails on, unless it says so itself.
    """
    try:
        yield
    except PrefrankError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise BadModel(
            f"the state in {folder / _STATE} is not from this run ({why}); remove that checkpoint"
        ) from error
