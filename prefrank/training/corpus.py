"""The comparisons a recipe asks for: what to train on, what to evaluate on, and the account of both.

Surprising: sets are divided by prompt, never by row, with stable hashes of the conversation's start, so the same
comparisons fall on the same side on every machine. Prompts of an evaluation set are taken out of the training data.
"""

from collections.abc import Callable, Mapping, Sequence
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
    evaluation: dict[str, tuple[Comparison, ...]] = {}
    record: list[dict[str, Any]] = []
    for source in recipe.evaluation:
        loaded = load_comparisons(source.source, split=source.split, limit=source.limit)
        sieve = _Sieve(loaded.comparisons)
        sieve.drop("not in the fraction", _outside(source.fraction))
        name = _unique(_name(source), evaluation)
        evaluation[name] = sieve.kept
        _account(record, report, name, "evaluation", source, loaded, sieve)
    seen = {split_of(one.prompt) for comparisons in evaluation.values() for one in comparisons}
    training: list[Comparison] = []
    weights: list[float] = []
    for source in recipe.datasets:
        loaded = _load_training(source)
        sieve = _Sieve(loaded.comparisons)
        sieve.drop("not in the fraction", _outside(source.fraction))
        sieve.drop("prompt is in an evaluation set", lambda one: split_of(one.prompt) in seen)
        held_out = sieve.drop("held out", lambda one: split_of(one.prompt, seed=_HELD_OUT) < recipe.held_out)
        _account(record, report, _name(source), "training", source, loaded, sieve)
        if held_out:
            evaluation[_unique(f"{_name(source)} held out", evaluation)] = held_out
        training += sieve.kept
        weights += [source.weight] * len(sieve.kept)
    if not training:
        raise BadData(f"no comparison is left to train on; {_why(record)}")
    return Corpus(tuple(training), tuple(weights), {k: v for k, v in evaluation.items() if v}, tuple(record))
