"""`evaluate`: a scorer and items in, one record of results out, per subset and overall.

A scorer is a function, `RewardModel.score_pairs` or a baseline alike, and is called once with every distinct
(prompt, reply): a reply in five pairs, or in two comparisons, is scored once. The record keeps every score, so that
two evaluations of the same data (equal `data`) can be compared later without running a model again.
"""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import add
from typing import Any

import numpy as np

from prefrank.errors import BadData, BadInput, short
from prefrank.evaluation.items import Item, as_item
from prefrank.evaluation.metrics import Metrics, measure_subsets
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.io.schema import plain
from prefrank.io.versions import versions_of
from prefrank.stats.bootstrap import Bootstrap
from prefrank.types import Comparison, Preferences, Prompt, RankedPairs, Score

Scorer = Callable[[Sequence[tuple[Prompt, str]]], Sequence[Score]]
"""(prompt, reply) pairs in, one score for each out, in order. A value may be NaN: a failure, which counts as a loss."""

_BLOCK = 1 << 16
"""How many pairs of a long ranking are hashed at a time."""

PACKAGES = ("prefrank", "numpy", "torch", "tokenizers", "transformers")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one scorer got on one collection of items.

    Args:
        name: of the scorer, as the caller calls it.
        model: its fingerprint, from the scores.
        data: sha256 of the items, whatever their order.
        overall: all items together.
        subsets: an item's subset (a comparison's source) -> its own results, in order of first appearance.
        bootstrap: how the intervals were made.
        versions: Python, prefrank and the libraries under it.
        sample: every item's facts and scores, in the given order.
    """

    name: str
    model: str
    data: str
    overall: Metrics
    subsets: dict[str, Metrics]
    bootstrap: Bootstrap
    versions: dict[str, str]
    sample: Sample

    def to_json(self, *, items: bool = False) -> dict[str, Any]:
        """Plain values for strict JSON: what has no value is null, never NaN. `items` adds every score."""
        record = {
            "name": self.name,
            "model": self.model,
            "data": self.data,
            "overall": plain(self.overall),
            "subsets": {subset: plain(metrics) for subset, metrics in self.subsets.items()},
            "intervals": asdict(self.bootstrap),
            "versions": self.versions,
        }
        both = zip(self.sample.facts, self.sample.scores, strict=True)
        scores = [{"subset": facts.subset, "id": facts.id, "scores": plain_values(each)} for facts, each in both]
        return record | {"items": scores} if items else record


def plain_values(scores: Sequence[Score]) -> list[float | None]:
    """Values for JSON; null for one that is not finite."""
    return [score.value if math.isfinite(score.value) else None for score in scores]


def evaluate(
    score_pairs: Scorer, items: Sequence[Comparison | Item], *, name: str, bootstrap: Bootstrap | None = None
) -> Evaluation:
    """Score every distinct (prompt, reply) once and measure agreement with the preferences.

    Args:
        score_pairs: such as `RewardModel.load(folder).score_pairs`.
        items: comparisons, or a suite's items.
        name: what to call the scorer in tables.
        bootstrap: how to make intervals; 10,000 resamples of prompts, 95 % by default.

    Raises:
        BadData: no items.
        BadInput: the items are no comparisons; the scorer gives too few or too many scores, something that is no
            score, or scores of several models.
    """
    check_items(items)
    if not items:
        raise BadData(f"there are no comparisons to evaluate {short(name)} on; wanted at least one")
    bootstrap = bootstrap or Bootstrap()
    sample = sample_of(items, score_once(score_pairs, items))
    overall, subsets = measure_subsets(sample, bootstrap)
    return Evaluation(
        name=name,
        model=sample.scores[0][0].model,
        data=data_hash(items),
        overall=overall,
        subsets=subsets,
        bootstrap=bootstrap,
        versions=versions(),
        sample=sample,
    )


def check_items(items: object) -> None:
    """Check that these are comparisons or items.

    Raises:
        BadInput: they are not.
    """
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise BadInput(f"the comparisons are of type {type(items).__name__}; wanted a list of them")
    for place, item in enumerate(items):
        if not isinstance(item, Comparison | Item):
            raise BadInput(f"comparison {place} is {short(item)}; wanted a Comparison or an Item")


def score_once(score_pairs: Scorer, items: Sequence[Comparison | Item]) -> list[tuple[Score, ...]]:
    """Each item's scores; equal (prompt, reply) pairs go to the scorer once, in one call."""
    pairs = [[(item.prompt, reply) for reply in item.replies] for item in items]
    distinct = list(dict.fromkeys(pair for each in pairs for pair in each))
    scores = _scores(score_pairs(distinct))
    if len(scores) != len(distinct):
        raise BadInput(f"the scorer gave {len(scores)} scores for {len(distinct)} replies; wanted one for each")
    models = {score.model for score in scores}
    if len(models) > 1:
        raise BadInput(f"the scores come from {len(models)} models ({', '.join(sorted(models))}); wanted one")
    known = dict(zip(distinct, scores, strict=True))
    return [tuple(known[pair] for pair in each) for each in pairs]


def _scores(given: object) -> list[Score]:
    """What a scorer gave, with values that are Python floats.

    Raises:
        BadInput: it is no list of scores, or a part of a score is no number.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise BadInput(f"the scorer gave {short(given)}; wanted a list of scores")
    scores = []
    for score in given:
        if not isinstance(score, Score):
            raise BadInput(f"the scorer gave {short(score)} for a reply; wanted a prefrank.types.Score")
        counts = (score.tokens, score.cut_prompt, score.cut_reply)
        if any(type(count) is not int or count < 0 for count in counts) or not isinstance(score.model, str):
            raise BadInput(f"a score of the scorer is {short(score)}; wanted counts of tokens and a model's name in it")
        is_float = type(score.value) is float
        scores.append(score if is_float else replace(score, value=as_score(score.value, "the scorer gave")))
    return scores


def as_score(value: object, what: str) -> float:
    """A scorer's number as a float; NaN or infinity is a failure, not an error.

    Raises:
        BadInput: it is no number, such as True or a string.
    """
    try:
        if isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except Exception:  # of whatever type, with whatever `__float__`
        raise BadInput(f"{what} {short(value)} for a score; wanted a number") from None


def data_hash(items: Sequence[Comparison | Item]) -> str:
    """sha256 over the items' own hashes, sorted: the same for the same items in any order."""
    return hashlib.sha256("".join(sorted(map(_hash, items))).encode()).hexdigest()


def _hash(given: Comparison | Item) -> str:
    item = given if isinstance(given, Item) else as_item(given)
    before = [
        item.subset,
        item.id,
        [[turn.role, turn.text, *([turn.extra] if turn.extra else [])] for turn in item.prompt],
        item.replies,
    ]
    digest = hashlib.sha256(f"{json.dumps(before)[:-1]}, [".encode())
    for number, part in enumerate(_stated(item.preferences)):
        digest.update(f"{', ' if number else ''}{part}".encode())
    digest.update(f"]{''.join(f', {json.dumps(gold)}' for gold in [item.gold] if gold)}]".encode())
    return digest.hexdigest()


def _stated(preferences: Preferences) -> Iterator[str]:
    """The preferences as parts of a JSON list; a long ranking's come in blocks."""
    if not isinstance(preferences, RankedPairs):
        plain = [[p.winner, p.loser, float(p.probability), float(p.weight), float(p.margin)] for p in preferences]
        yield json.dumps(plain)[1:-1]
        return
    winner, loser, tie = preferences.arrays()
    size = len(preferences.ranks)
    starts = [f"[{reply}, " for reply in range(size)]
    ends = [f"{reply}, {probability}, 1.0, 0.0]" for probability in ("1.0", "0.5") for reply in range(size)]
    for first in range(0, len(tie), _BLOCK):
        part = slice(first, first + _BLOCK)
        end = np.where(tie[part], loser[part] + size, loser[part])
        both = map(starts.__getitem__, winner[part].tolist()), map(ends.__getitem__, end.tolist())
        yield ", ".join(map(add, *both))


def versions() -> dict[str, str]:
    """Of Python and the packages a score depends on."""
    return {"python": platform.python_version(), **versions_of(PACKAGES)}
