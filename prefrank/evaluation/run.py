"""`evaluate`: a scorer and comparisons in, one record of results out, per data set and overall.

A scorer is a function, `RewardModel.score_pairs` or a baseline alike, and is called once with every distinct
(prompt, reply): a reply in five pairs, or in two comparisons, is scored once. The record keeps every score, so that
two evaluations of the same data (equal `data`) can be compared later without running a model again.
"""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prefrank.errors import BadData, BadInput
from prefrank.evaluation.estimates import Bootstrap
from prefrank.evaluation.metrics import Metrics, measure
from prefrank.types import Comparison, Prompt, Score

Scorer = Callable[[Sequence[tuple[Prompt, str]]], Sequence[Score]]
"""(prompt, reply) pairs in, one score for each out, in their order."""

PACKAGES = ("prefrank", "numpy", "torch", "tokenizers", "transformers")


@dataclass(frozen=True, slots=True)
class Item:
    """One comparison's scores, in the order of its replies."""

    source: str
    id: str
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        values = [score.value if math.isfinite(score.value) else None for score in self.scores]
        return {"source": self.source, "id": self.id, "scores": values}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one scorer got on one collection of comparisons.

    Args:
        name: of the scorer, as the caller calls it.
        model: its fingerprint, from the scores.
        data: sha256 of the comparisons, whatever their order.
        overall: all comparisons together.
        sources: `Comparison.source` -> its own results, in order of first appearance.
        bootstrap: how the intervals were made.
        versions: Python, prefrank and the libraries under it.
        items: every comparison's scores, in the given order.
    """

    name: str
    model: str
    data: str
    overall: Metrics
    sources: dict[str, Metrics]
    bootstrap: Bootstrap
    versions: dict[str, str]
    items: tuple[Item, ...]

    def to_json(self, *, items: bool = False) -> dict[str, Any]:
        """Plain values for strict JSON: what has no value is null, never NaN. `items` adds every score."""
        record = {
            "name": self.name,
            "model": self.model,
            "data": self.data,
            "overall": self.overall.to_json(),
            "sources": {source: metrics.to_json() for source, metrics in self.sources.items()},
            "intervals": asdict(self.bootstrap),
            "versions": self.versions,
        }
        return record | {"items": [item.to_json() for item in self.items]} if items else record


def evaluate(
    score_pairs: Scorer, comparisons: Sequence[Comparison], *, name: str, bootstrap: Bootstrap | None = None
) -> Evaluation:
    """Score every distinct (prompt, reply) once and measure agreement with the preferences.

    Args:
        score_pairs: such as `RewardModel.load(folder).score_pairs`.
        name: what to call the scorer in tables.
        bootstrap: how to make intervals; 2,000 resamples of prompts, 95 % by default.

    Raises:
        BadData: no comparisons.
        BadInput: the scorer gives too few or too many scores, or scores of several models.
    """
    if not comparisons:
        raise BadData(f"there are no comparisons to evaluate {name!r} on; wanted at least one")
    style = bootstrap or Bootstrap()
    scores = score_once(score_pairs, comparisons)
    grouped: dict[str, list[int]] = {}
    for place, comparison in enumerate(comparisons):
        grouped.setdefault(comparison.source, []).append(place)
    parts = {source: ([comparisons[i] for i in at], [scores[i] for i in at]) for source, at in grouped.items()}
    overall = measure(comparisons, scores, bootstrap=style)
    return Evaluation(
        name=name,
        model=scores[0][0].model,
        data=data_hash(comparisons),
        overall=overall,
        # One source alone is the whole: its intervals need not be drawn twice.
        sources={
            source: overall if len(parts) == 1 else measure(*part, bootstrap=style) for source, part in parts.items()
        },
        bootstrap=style,
        versions=versions(),
        items=tuple(Item(c.source, c.id, each) for c, each in zip(comparisons, scores, strict=True)),
    )


def score_once(score_pairs: Scorer, comparisons: Sequence[Comparison]) -> list[tuple[Score, ...]]:
    """Each comparison's scores; equal (prompt, reply) pairs go to the scorer once, in one call."""
    pairs = [[(comparison.prompt, reply) for reply in comparison.replies] for comparison in comparisons]
    distinct = list(dict.fromkeys(pair for each in pairs for pair in each))
    scores = score_pairs(distinct)
    if len(scores) != len(distinct):
        raise BadInput(f"the scorer gave {len(scores)} scores for {len(distinct)} replies; wanted one for each")
    models = {score.model for score in scores}
    if len(models) > 1:
        raise BadInput(f"the scores come from {len(models)} models ({', '.join(sorted(models))}); wanted one")
    known = dict(zip(distinct, scores, strict=True))
    return [tuple(known[pair] for pair in each) for each in pairs]


def data_hash(comparisons: Sequence[Comparison]) -> str:
    """sha256 over the comparisons' own hashes, sorted: the same for the same comparisons in any order."""
    return hashlib.sha256("".join(sorted(map(_hash, comparisons))).encode()).hexdigest()


def _hash(comparison: Comparison) -> str:
    plain = [
        comparison.source,
        comparison.id,
        [[turn.role, turn.text] for turn in comparison.prompt],
        comparison.replies,
        [[p.winner, p.loser, float(p.probability), float(p.weight), float(p.margin)] for p in comparison.preferences],
    ]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of Python and the packages a score depends on; read from their metadata, nothing is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
