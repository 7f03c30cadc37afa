"""What a run reports while it goes: frozen values passed to `callback`. Nothing here prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SetRole = Literal["training", "evaluation"]


@dataclass(frozen=True, slots=True)
class DataRead:
    """One data set was read.

    Args:
        name: source, and split unless it is read whole.
        role: what its comparisons are for.
        comparisons: how many are kept for that; None for a set that streams.
        record: the rule that chose the split, what that holds out, the reader's own report and what was left out after
            it, as plain values; of a set that streams, the rule alone.
    """

    name: str
    role: SetRole
    comparisons: int | None
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Comparisons are being turned into token ids, once, before the first step."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """One data set is token ids now.

    Args:
        name: `training` for the training sets together, or an evaluation set's.
        counts: of `encoded.EncodingCounts`, as plain values; of sets that stream those of a sample.
        remarks: what deserves a second look.
    """

    name: str
    counts: Mapping[str, int]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The first step is next.

    Args:
        steps: optimizer steps of the whole run.
        first_step: steps already done, above 0 for a resumed run.
        comparisons: training comparisons in one epoch.
        prompts_per_step: comparisons behind one step.
        parameters: of the network.
        trainable: of those, how many are trained.
        device: where the network stands.
    """

    steps: int
    first_step: int
    comparisons: int
    prompts_per_step: int
    parameters: int
    trainable: int
    device: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step, over all devices.

    Args:
        step: number of steps done.
        steps: of the whole run.
        loss: mean over the step's comparisons.
        accuracy: share of the step's preferences that the scores order right; ties count one half.
        tokens: tokens of the step's rows.
        tokens_per_s: over the last steps.
        seconds_left: until the last step, at that speed.
        learning_rate: of the body's top layer in this step.
        grad_norm: before clipping.
        computed: tokens of all micro-batches: fewer than `tokens` where rows of a decoder share what they begin with.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    tokens: int
    tokens_per_s: float
    seconds_left: float
    learning_rate: float
    grad_norm: float
    computed: int = 0


@dataclass(frozen=True, slots=True)
class SetMetrics:
    """How well scores agree with the preferences of one data set; every comparison counts the same.

    Args:
        comparisons: number of comparisons.
        decided: of those, how many have a preference that is not a tie; the n of `accuracy` and `interval`.
        pairs: preferences that are not ties.
        ties: preferences of probability 0.5.
        accuracy: mean over comparisons of the share of its pairs in the right order; equal scores count one half.
        interval: 95 % Wilson interval of the accuracy with n = decided (too wide, if anything, for K > 2).
        log_loss: mean over comparisons of the mean -log P of their preferences, ties included, under the likelihood of
            the run's loss; under Bradley-Terry ln 2 is what equal scores get.
        log_loss_interval: 95 % normal interval of that mean with n = comparisons; None where it was not measured.
    """

    comparisons: int
    decided: int
    pairs: int
    ties: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    log_loss_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """Every evaluation set was scored.

    Args:
        step: number of steps done.
        sets: name -> metrics.
        overall: of all evaluation comparisons together.
        best: whether this is the best so far.
        seconds: time it took.
    """

    step: int
    sets: Mapping[str, SetMetrics]
    overall: SetMetrics
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint folder is complete on disk."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A damaged checkpoint, which is not resumed from; `torn` says what is wrong with it."""

    folder: Path
    torn: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that `save_total_limit` would remove, but for a file in it that no run wrote, which `why` names."""

    folder: Path
    why: str


Event = PassedOver | Kept | DataRead | Encoding | Encoded | Started | StepDone | EvaluationDone | Saved
Callback = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The callback that does nothing."""
