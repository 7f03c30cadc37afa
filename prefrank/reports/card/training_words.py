"""What a card says of the training: the sets and their licenses, the recipe to repeat it with, and the papers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prefrank.data.candidates import OTHER_SPLIT
from prefrank.reports.card.subject import Subject
from prefrank.reports.card.terms import BASES, DATA, catalogue_name, data_license, hub_name, public_name
from prefrank.reports.card.training_record import LOSSES, TrainedRecipe
from prefrank.reports.markdown import plain

_PRIVATE_KEYS = {"output_dir", "overwrite", "resume", "trackers"}
"""Recipe keys that say nothing of the model."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A set that was read whole, as a row of a table.

    Args:
        hub: its id there; None where it is not there.
        made: comparisons that reading gave; `kept` of them were used.
        dropped: how many, by reason.
        pairs, ties: as read.
        role: training or evaluation.
    """

    name: str
    hub: str | None
    license: str | None
    rows: int
    made: int
    kept: int
    dropped: str
    pairs: int
    ties: int
    role: str


def training_sets(subject: Subject) -> list[TrainingSet]:
    return [
        TrainingSet(
            name=set_name(data_set.name),
            hub=hub_name(data_set.read.source),
            license=data_license(data_set.read.source, subject.facts),
            rows=data_set.read.rows,
            made=data_set.read.kept,
            kept=data_set.comparisons,
            dropped=reasons(data_set.dropped),
            pairs=data_set.read.pairs,
            ties=data_set.read.ties,
            role=data_set.role,
        )
        for data_set in (subject.training.data.read if subject.training else ())
    ]


def sets_drawn(subject: Subject) -> Iterator[str]:
    """What was streamed or drawn in part, from which set and under which license, in Markdown."""
    if subject.training is None:
        return
    for data_set in subject.training.data.drawn:
        counts = data_set.counts
        dropped = {reason: count for reason, count in data_set.dropped.items() if reason != OTHER_SPLIT}
        if counts or any(dropped.values()):
            counted = ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing drawn"
            yield f"{plain(set_name(data_set.name))}: {counted}; dropped: {plain(reasons(dropped))}."
    for asked in subject.training.recipe.datasets:
        if asked.stream:
            license = data_license(asked.source, subject.facts)
            yield f"{plain(public_name(asked.source))} was streamed; its license: {plain(license)}."


def set_name(name: str) -> str:
    """`source:split` with a public source."""
    source, colon, split = name.rpartition(":")
    return f"{public_name(source)}:{split}" if colon else public_name(name)


def reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count) or "none"


def recipe_yaml(recipe: TrainedRecipe) -> str:
    """The recipe as a file that trains again; places on the trainer's machine are left to whoever does."""
    import yaml

    values = {key: value for key, value in recipe.values.items() if key not in _PRIVATE_KEYS}
    values["model_name"] = public_name(recipe.model_name)
    values["datasets"] = [_public(data_set) for data_set in values["datasets"]]
    if recipe.evaluation is not None:
        values["evaluation"] = [_public(data_set) for data_set in values["evaluation"]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100).strip()


def _public(data_set: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of a data set, without what it leaves to the defaults."""
    return {
        key: value
        for key, value in {**data_set, "source": public_name(data_set["source"])}.items()
        if value is not None
    }


def papers(subject: Subject) -> list[str]:
    """Of the likelihood, the base model and the data, as far as they are known."""
    loss = LOSSES[subject.training.recipe.loss][1] if subject.training else ""
    data = [DATA[name].paper for source in subject.sources if (name := catalogue_name(source)) in DATA]
    base = BASES[subject.base].paper if subject.base in BASES else ""
    return [paper for paper in dict.fromkeys([loss, base, *data]) if paper]
