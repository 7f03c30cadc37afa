"""The comparisons a recipe asks for: what to train on, what to evaluate on, and the account of both.

Surprising: sets are divided by prompt, never by row, with stable hashes of the conversation's start, so the same
comparisons fall on the same side on every machine. Prompts of an evaluation set are taken out of the training data.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from prefrank.data import Loaded, load_comparisons, split_of
from prefrank.errors import BadData, NotFound
from prefrank.training.events import DataRead, Report, ignore
from prefrank.training.recipe import DataSource, Recipe
from prefrank.types import Comparison

_HELD_OUT, _FRACTION = 0, 1
"""Seeds of two independent hashes: which prompts are held out, and which a fraction keeps."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Comparisons by purpose.

    Args:
        training: of all training sets, one after the other.
        weights: what each of those counts in the loss.
        evaluation: name -> comparisons; a held-out part is called `NAME held out`.
        record: one entry per set read: its reader's report, and what was left out here, as plain values.
    """

    training: tuple[Comparison, ...]
    weights: tuple[float, ...]
    evaluation: Mapping[str, tuple[Comparison, ...]]
    record: tuple[dict[str, Any], ...]


def read_corpus(recipe: Recipe, report: Report = ignore) -> Corpus:
    """Read every data set of a recipe.

    Raises:
        NotFound: no such data set or split.
        BadData: a row that cannot be read, or nothing left to train on.
    """
    shelf = _Shelf(report)
    for source in recipe.evaluation:
        shelf.add_evaluation(source)
    starts = {split_of(one.prompt) for comparisons in shelf.evaluation.values() for one in comparisons}
    for source in recipe.datasets:
        shelf.add_training(source, starts, recipe.held_out)
    if not shelf.training:
        counts = "; ".join(f"{one['name']}: {one['left_out']}" for one in shelf.record if one["role"] == "training")
        raise BadData(f"no comparison is left to train on ({counts}); add data, or lower held_out")
    return Corpus(tuple(shelf.training), tuple(shelf.weights), shelf.evaluation, tuple(shelf.record))


class _Shelf:
    """What has been read so far."""

    def __init__(self, report: Report) -> None:
        self.training: list[Comparison] = []
        self.weights: list[float] = []
        self.evaluation: dict[str, tuple[Comparison, ...]] = {}
        self.record: list[dict[str, Any]] = []
        self._report = report

    def add_evaluation(self, source: DataSource) -> None:
        loaded = load_comparisons(source.source, split=source.split, limit=source.limit)
        kept, outside = _divide(loaded.comparisons, _in_fraction(source))
        name = self._evaluate_on(_name(source), kept)
        self._account(name, "evaluation", loaded, kept, {"not in the fraction": len(outside)})

    def add_training(self, source: DataSource, starts: Set[float], held_out: float) -> None:
        loaded = _load_training(source)
        kept, outside = _divide(loaded.comparisons, _in_fraction(source))
        kept, leaks = _divide(kept, lambda one: split_of(one.prompt) not in starts)
        kept, aside = _divide(kept, lambda one: split_of(one.prompt, seed=_HELD_OUT) >= held_out)
        left_out = {"not in the fraction": outside, "prompt is in an evaluation set": leaks, "held out": aside}
        self.training += kept
        self.weights += [source.weight] * len(kept)
        self._account(_name(source), "training", loaded, kept, {why: len(those) for why, those in left_out.items()})
        if aside:
            name = self._evaluate_on(f"{_name(source)} held out", aside)
            self._report(DataRead(name, "held out", len(aside), {}))

    def _evaluate_on(self, name: str, comparisons: tuple[Comparison, ...]) -> str:
        """Keep an evaluation set under a name of its own."""
        taken = sum(other == name or other.startswith(f"{name} #") for other in self.evaluation)
        unique = f"{name} #{taken + 1}" if taken else name
        if comparisons:
            self.evaluation[unique] = comparisons
        return unique

    def _account(
        self,
        name: str,
        role: Literal["training", "evaluation"],
        loaded: Loaded,
        kept: Sequence[Comparison],
        left_out: Mapping[str, int],
    ) -> None:
        counted = {why: count for why, count in left_out.items() if count}
        entry = {"name": name, "role": role, "comparisons": len(kept), "left_out": counted}
        self.record.append({**entry, "read": loaded.report.to_json()})
        self._report(DataRead(name, role, len(kept), self.record[-1]))


def _load_training(source: DataSource) -> Loaded:
    """Without a named split, the training split where the source has one, else everything."""
    if source.split is None:
        try:
            return load_comparisons(source.source, split="train", limit=source.limit)
        except NotFound:
            pass
    return load_comparisons(source.source, split=source.split, limit=source.limit)


def _divide(
    comparisons: Sequence[Comparison], keep: Callable[[Comparison], bool]
) -> tuple[tuple[Comparison, ...], tuple[Comparison, ...]]:
    """Those to keep, and the others."""
    verdicts = [keep(one) for one in comparisons]
    kept = tuple(one for one, verdict in zip(comparisons, verdicts, strict=True) if verdict)
    return kept, tuple(one for one, verdict in zip(comparisons, verdicts, strict=True) if not verdict)


def _in_fraction(source: DataSource) -> Callable[[Comparison], bool]:
    return lambda one: split_of(one.prompt, seed=_FRACTION) < source.fraction


def _name(source: DataSource) -> str:
    return source.source if source.split is None else f"{source.source}:{source.split}"
