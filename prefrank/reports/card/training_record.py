"""What a card reads of a checkpoint's training record, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from prefrank.errors import BadModel
from prefrank.evaluation.results import Hardware
from prefrank.io.schema import Stored, Wrong, read

LOSSES = {
    "bradley_terry": ("Bradley-Terry", "Bradley and Terry (1952), Rank analysis of incomplete block designs"),
    "plackett_luce": ("Plackett-Luce", "Plackett (1975), The analysis of permutations"),
    "rao_kupper": ("Rao-Kupper", "Rao and Kupper (1967), Ties in paired-comparison experiments"),
    "davidson": ("Davidson", "Davidson (1970), On extending the Bradley-Terry model to accommodate ties"),
    "ordinal": ("ordinal", "McCullagh (1980), Regression models for ordinal data"),
    "regression": ("normal errors of ratings", "Thurstone (1927), A law of comparative judgment"),
}
"""Recipe's loss -> what the likelihood is called, and its paper."""


def _known_loss(loss: str) -> None:
    if loss not in LOSSES:
        raise Wrong(loss, f"one of {', '.join(LOSSES)}")


@dataclass(frozen=True, slots=True)
class RecipeSource:
    """A data set as the recipe asks for it."""

    source: str
    lang: str | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class TrainedRecipe:
    """Args:
    values: the whole of it, as it was stored.
    """

    model_name: str
    datasets: tuple[RecipeSource, ...]
    loss: Annotated[str, _known_loss]
    leaks: str
    evaluation: tuple[RecipeSource, ...] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def _read_recipe(value: Any) -> TrainedRecipe:
    return replace(read(TrainedRecipe, value, strict=False), values=value)


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a data set gave."""

    source: str
    rows: int
    kept: int
    pairs: int
    ties: int


@dataclass(frozen=True, slots=True)
class SetRead:
    """A data set that was read whole.

    Args:
        role: training or evaluation.
        comparisons: used.
        dropped: reason -> comparisons or rows.
        contradicting, leaks: of the comparisons used, those that are doubtful.
    """

    name: str
    role: str
    comparisons: int
    dropped: Mapping[str, int]
    read: Reading
    contradicting: int = 0
    leaks: int = 0


@dataclass(frozen=True, slots=True)
class SetDrawn:
    """A data set that was streamed, or from which an epoch takes a part; None for what does not apply."""

    name: str
    comparisons: int | None = None
    drawn: int | None = None
    beyond_per_prompt: int | None = None
    longer_preferred: int | None = None
    shorter_preferred: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """What is counted, as a reader calls it."""
        counts = {
            "comparisons": self.comparisons,
            "drawn": self.drawn,
            "beyond per prompt": self.beyond_per_prompt,
            "longer preferred": self.longer_preferred,
            "shorter preferred": self.shorter_preferred,
        }
        return {name: count for name, count in counts.items() if count is not None}


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """What became of a data set's comparisons as rows of tokens."""

    comparisons: int
    kept: int
    rows: int
    tokens: int
    rows_with_cut_prompt: int
    rows_with_cut_reply: int


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Args:
    digests: of the encoded sets, by name.
    """

    read: tuple[SetRead, ...]
    drawn: tuple[SetDrawn, ...]
    encoded: Mapping[str, EncodedSet]
    digests: Mapping[str, str]

    @property
    def learned_from(self) -> int:
        """Comparisons: those of the sets that were read whole, or, of a run that streams, those drawn."""
        read = sum(set_read.comparisons for set_read in self.read if set_read.role == "training")
        return read or sum(set_drawn.drawn or 0 for set_drawn in self.drawn)


@dataclass(frozen=True, slots=True)
class Spent:
    """Args:
    co2e_kg: as codecarbon measured it; None where it did not.
    """

    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    sessions: int
    energy_kwh: float | None = None
    co2e_kg: float | None = None
    energy_missing: str | None = None
    peak_gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the curve; evaluations have no speed."""

    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """A run of `prefrank train`, as its checkpoints tell of it."""

    recipe: Annotated[TrainedRecipe, Stored(_read_recipe, lambda recipe: recipe.values)]
    data: TrainingData
    hardware: Hardware
    spent: Spent
    versions: Mapping[str, str]
    started: str
    device: str
    processes: int
    bf16: bool
    step: int
    steps: int
    comparisons_per_step: int
    curve: tuple[Logged, ...]


def read_training(training: Mapping[str, Any] | None, file: Path) -> TrainingRecord | None:
    """The record, from prefrank.json; None where it is missing or lacks what a card needs.

    Raises:
        BadModel: a part is of a wrong type.
    """
    if training is None or not {"recipe", "data", "hardware", "spent", "versions"} <= training.keys():
        return None
    try:
        return read(TrainingRecord, training, strict=False)
    except Wrong as wrong:
        raise BadModel(f"{file}: {wrong.inside('training')}; copy or train the model again") from None
