"""Accuracy of parts of a sample: by subset, turns, lengths, language, what was cut, and any tags of the user's.

Every pair keeps the weight it has in the whole, its share of its item, so a slice's accuracies, weighed by
their mass, give the accuracy of the whole again. Of many slices some look bad by chance: `worst` marks a value only if
its interval, widened for the number of values looked at, stays below the whole. And shares that come by the dozen
(slices, buckets, coverages) get their intervals in closed form, `share_of`, not from 10,000 resamples each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.errors import BadInput
from prefrank.evaluation.samples import Pairs, Sample
from prefrank.stats.arrays import in_groups
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Share
from prefrank.stats.estimates import FEW_PROMPTS, Estimate, weighted_share
from prefrank.stats.figures import Bounds, Figure, mean_figure
from prefrank.types import Score

MIN_PROMPTS = FEW_PROMPTS
"""With fewer a slice is never called the worst."""

_LENGTHS = (100, 500, 2000)
_BUCKETS = ("under 100", "100 to 499", "500 to 1,999", "2,000 or more")
_ORDER = (*_BUCKETS, "1", "2", "3 or more", "longer", "as long", "shorter", "whole", "cut")
"""Values that have an order; others come as they first appear."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The accuracy where `name` is `value`; `worst` for at most one of a list."""

    name: str
    value: str
    accuracy: Share
    worst: bool = False


def figure_of(
    values: Float64[np.ndarray, " P"],
    weight: Float64[np.ndarray, " P"],
    pairs: Pairs,
    *,
    bounds: Bounds | None = (0.0, 1.0),
) -> Figure:
    """The weighted mean over the pairs that weigh anything."""
    weighs = weight > 0
    if weighs.all():
        return mean_figure(values, pairs.prompts, weight, n=len(values), unit="pairs", bounds=bounds)
    kept = np.flatnonzero(weighs)
    return mean_figure(values[kept], pairs.prompts[kept], weight[kept], n=len(kept), unit="pairs", bounds=bounds)


def share_of(
    right: Float64[np.ndarray, " P"],
    weight: Float64[np.ndarray, " P"],
    pairs: Pairs,
    *,
    confidence: float,
    kept: Int64[np.ndarray, " n"] | None = None,
) -> Estimate:
    """The weighted mean of results between 0 and 1, with its interval in closed form: `weighted_share`."""
    prompts, num_prompts = pairs.prompts, len(pairs.prompt)
    return weighted_share(right, weight, prompts, num_prompts=num_prompts, confidence=confidence, kept=kept)


def slices(
    sample: Sample, bootstrap: Bootstrap | None = None, *, tags: Mapping[str, Sequence[str]] | None = None
) -> tuple[Slice, ...]:
    """The accuracy for each value of each slice that has two or more.

    Slices: subset, turns, prompt length and reply length (characters, of replies the mean), preferred (whether the
    preferred reply is the longer one), cut (whether either row was), language.

    Args:
        tags: slices of the user's: name -> one value for each item, "" where it has none.

    Raises:
        BadInput: a tag with too few or too many values, or with the name of a slice above.
    """
    pairs, level = sample.pairs, (bootstrap or Bootstrap()).confidence
    weight, right = pairs.share, sample.wins
    parts = []
    for name, (labels, number) in _labels(sample, tags or {}).items():
        by_value = {labels[place]: kept for place, kept in in_groups(number, weight)}
        values = [value for value in sorted(by_value, key=lambda value: by_value[value][0]) if value]
        values.sort(key=lambda value: _ORDER.index(value) if value in _ORDER else 0)
        for value in values if len(values) > 1 else []:
            inside = share_of(right, weight, pairs, confidence=level, kept=by_value[value])
            parts.append(Slice(name, value, inside))
    return mark_worst(parts, share_of(right, weight, pairs, confidence=level), level)


def _labels(sample: Sample, tags: Mapping[str, Sequence[str]]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Slice -> its labels, "" for none, and the number of each pair's; without slices of one label."""
    pairs, facts = sample.pairs, sample.facts
    by_item: dict[str, Sequence[str]] = {
        "subset": [item.subset for item in facts],
        "turns": [str(item.turns) if item.turns < 3 else "3 or more" for item in facts],
        "prompt length": [_bucket(item.prompt_length) for item in facts],
        "reply length": [_bucket(sum(item.lengths) / len(item.lengths)) for item in facts],
        "language": [item.language for item in facts],
    }
    cut = np.array([_is_cut(score) for each in sample.scores for score in each], bool)
    by_pair = {
        "preferred": (["shorter", "as long", "longer"], (np.sign(sample.longer) + 1).astype(np.int8)),
        "cut": (["whole", "cut"], (cut[pairs.ahead] | cut[pairs.behind]).astype(np.int8)),
    }
    for name, values in tags.items():
        if name in by_item or name in by_pair:
            raise BadInput(f"the tag {name!r} has the name of a slice that is always there; give it another")
        if len(values) != len(facts):
            raise BadInput(f"the tag {name!r} has {len(values)} values for {len(facts)} items; wanted one for each")
    labels = {}
    for name, values in (by_item | dict(tags)).items():
        place = {value: number for number, value in enumerate(dict.fromkeys(map(str, values)))}
        if len(place) > 1:
            numbers = np.array([place[str(value)] for value in values], np.int32)
            labels[name] = list(place), numbers[pairs.comparison]
    return labels | by_pair


def _bucket(characters: int | float) -> str:
    return _BUCKETS[sum(characters >= edge for edge in _LENGTHS)]


def _is_cut(score: Score) -> bool:
    return score.cut_prompt > 0 or score.cut_reply > 0


def mark_worst(parts: Sequence[Slice], whole: Estimate, confidence: float) -> tuple[Slice, ...]:
    """Mark the least accuracy of those below the whole beyond chance.

    "preferred" is not among them: which reply people prefer is the answer, so every model that likes length would get
    the same mark. With m values looked at, the upper half of the interval is widened to confidence
    1 - (1 - confidence) / m (Bonferroni), as if it were normal.
    """
    tail, looked_at = (1 - confidence) / 2, [part for part in parts if part.name != "preferred"]
    wider = NormalDist().inv_cdf(1 - tail / max(len(looked_at), 1)) / NormalDist().inv_cdf(1 - tail)
    worst: Slice | None = None
    for part in looked_at:
        value, high, lowest = part.accuracy.value, part.accuracy.high, worst.accuracy.value if worst else whole.value
        if value is None or high is None or whole.value is None or lowest is None:
            continue
        below = value + (high - value) * wider < whole.value
        if part.accuracy.prompts >= MIN_PROMPTS and below and value < lowest:
            worst = part
    return tuple(replace(part, worst=part is worst) for part in parts)
