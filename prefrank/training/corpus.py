"""The comparisons a recipe asks for: what to train on, what to evaluate on, and the account of both.

Surprising: sets are divided by prompt, never by row, with stable hashes of the conversation's start, so the same
comparisons fall on the same side on every machine. Prompts of an evaluation set are taken out of the training data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prefrank.data import Loaded, load_comparisons, split_of
from prefrank.data.candidates import OTHER_SPLIT
from prefrank.errors import BadData, NotFound
from prefrank.training.events import DataRead, Report, Role, ignore
from prefrank.training.recipe import DataSource, Recipe
from prefrank.types import Comparison

_FRACTION, _EVALUATION = 1, 2
"""Seeds of two hashes, independent of each other and of the one that makes splits (0)."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Comparisons by purpose.

    Args:
        training: of all training sets, one after the other.
        weights: what each of those counts in the loss.
        evaluation: name -> comparisons.
        record: one entry per set read: its reader's report, and what was left out here, as plain values.
    """

    training: tuple[Comparison, ...]
    weights: tuple[float, ...]
    evaluation: Mapping[str, tuple[Comparison, ...]]
    record: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Set:
    """One set as it was read, and what is kept of it."""

    source: DataSource
    role: Role
    read: Loaded
    kept: tuple[Comparison, ...]
    left_out: dict[str, int]

    @property
    def name(self) -> str:
        return f"{self.source.source}:{self.read.report.split}"

    def keep(self, wanted: Callable[[Comparison], bool], otherwise: str) -> "_Set":
        """The set without the comparisons that are not wanted, which are counted."""
        kept = tuple(one for one in self.kept if wanted(one))
        dropped = len(self.kept) - len(kept)
        counts = {**self.left_out, otherwise: dropped} if dropped else self.left_out
        return _Set(self.source, self.role, self.read, kept, counts)

    def account(self) -> dict[str, Any]:
        """Counts as plain values; rows that belong to another split are not called dropped."""
        lost = {why: count for why, count in self.read.report.dropped.items() if why != OTHER_SPLIT}
        counts = {"comparisons": len(self.kept), "dropped": {**lost, **self.left_out}, "left_out": self.left_out}
        return {"name": self.name, "role": self.role, **counts, "read": self.read.report.to_json()}


def read_corpus(recipe: Recipe, report: Report = ignore) -> Corpus:
    """Read every data set of a recipe.

    Raises:
        NotFound: no such data set or split.
        BadData: a row that cannot be read, or nothing left to train on.
    """
    training = [_read(_with_split(source, "train"), "training") for source in recipe.datasets]
    if recipe.evaluation is None:
        evaluation = list(chain.from_iterable(_own_evaluation(source) for source in recipe.datasets))
    else:
        evaluation = [_read(_with_split(source, "eval"), "evaluation") for source in recipe.evaluation]
    seen = {split_of(comparison.prompt) for one in evaluation for comparison in one.kept}
    training = [
        one.keep(lambda c: split_of(c.prompt) not in seen, "prompt is in an evaluation set") for one in training
    ]
    if recipe.eval_limit is not None:
        evaluation = [_first_by_hash(one, recipe.eval_limit) for one in evaluation]
    for one in [*training, *evaluation]:
        report(DataRead(one.name, one.role, len(one.kept), one.account()))
    if not any(one.kept for one in training):
        why = "; ".join(f"{one.name}: {one.left_out or 'no comparison'}" for one in training)
        raise BadData(f"no comparison is left to train on ({why}); add data, or evaluate on other prompts")
    return Corpus(
        training=tuple(chain.from_iterable(one.kept for one in training)),
        weights=tuple(chain.from_iterable([one.source.weight] * len(one.kept) for one in training)),
        evaluation=_by_name([one for one in evaluation if one.kept]),
        record=tuple(one.account() for one in [*training, *evaluation]),
    )


def _read(source: DataSource, role: Role) -> _Set:
    loaded = load_comparisons(
        source.source,
        split=source.split,
        limit=source.limit,
        lang=source.lang,
        group=source.group,
        protocol=source.protocol,
    )
    read = _Set(source, role, loaded, loaded.comparisons, {})
    return read.keep(lambda one: split_of(one.prompt, seed=_FRACTION) < source.fraction, "not in the fraction")


def _with_split(source: DataSource, split: str) -> DataSource:
    return source.model_copy(update={"split": split}) if source.split is None else source


def _own_evaluation(source: DataSource) -> list[_Set]:
    """What a training set publishes or keeps for evaluation, or nothing."""
    try:
        return [_read(source.model_copy(update={"split": "eval", "limit": None}), "evaluation")]
    except NotFound:
        return []


def _first_by_hash(one: _Set, limit: int) -> _Set:
    """At most `limit` comparisons, whole prompts as the hash orders them, so that a larger limit holds a smaller."""
    places = sorted(split_of(comparison.prompt, seed=_EVALUATION) for comparison in one.kept)
    last = places[limit - 1] if len(places) > limit else 1.0
    return one.keep(lambda comparison: split_of(comparison.prompt, seed=_EVALUATION) <= last, "beyond eval_limit")


def _by_name(sets: Sequence[_Set]) -> dict[str, tuple[Comparison, ...]]:
    """Sets under their names; a name that comes again gets a number."""
    named: dict[str, tuple[Comparison, ...]] = {}
    for one in sets:
        taken = sum(name.partition(" #")[0] == one.name for name in named)
        named[f"{one.name} #{taken + 1}" if taken else one.name] = one.kept
    return named
