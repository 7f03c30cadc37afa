"""Scored items as arrays: a `Sample` is the facts of items with one scorer's scores; every figure is a function of it.

What depends on the items alone (their pairs, lengths and strata) is computed once and shared by all scorers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.errors import BadInput
from prefrank.evaluation.items import Item, ItemFacts, as_item, facts_of
from prefrank.limits import limit, past
from prefrank.types import Comparison, Preference, RankedPairs, Score


def wins(margin: Float64[np.ndarray, " P"], equal: float = 0.5) -> Float64[np.ndarray, " P"]:
    """1 for a margin above 0, 0 for one below or a failure, and what equal scores count for."""
    return (margin > 0) + equal * (margin == 0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The P preferences of C items with N replies, seen from their majority side.

    What several figures need of them is computed once and shared by all scorers.

    Args:
        ahead: [P] row of the reply the majority prefers (either, for a tie).
        behind: [P] row of the other.
        probability: [P] of `ahead` winning, 0.5 to 1.
        weight: [P] inside its item.
        comparison: [P] which item.
        prompt: [C] items of one conversation start share a number.
        first: [C+1] first row of each item, and N.
    """

    ahead: Int64[np.ndarray, " P"]
    behind: Int64[np.ndarray, " P"]
    probability: Float64[np.ndarray, " P"]
    weight: Float64[np.ndarray, " P"]
    comparison: Int64[np.ndarray, " P"]
    prompt: Int64[np.ndarray, " C"]
    first: Int64[np.ndarray, " C+1"]

    @cached_property
    def decided(self) -> Bool[np.ndarray, " P"]:
        return self.probability > 0.5

    @cached_property
    def share(self) -> Float64[np.ndarray, " P"]:
        """Each decided pair's part of its item, in which the decided ones make 1; 0 for the others."""
        return shares(self, self.decided)

    @cached_property
    def prompts(self) -> Int64[np.ndarray, " P"]:
        """The prompt of each pair."""
        return self.prompt[self.comparison]


def shares(pairs: Pairs, chosen: Bool[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
    """Each chosen pair's part of its item, in which the chosen ones make 1; 0 for the others."""
    weight = np.where(chosen, pairs.weight, 0.0)
    mass = np.bincount(pairs.comparison, weight, len(pairs.prompt))
    return weight / np.where(mass > 0, mass, 1.0)[pairs.comparison]


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Values by size: the D distinct ones, ascending, and the place of each of the n among them."""

    values: Float64[np.ndarray, " D"]
    place: Int64[np.ndarray, " n"]


def ordered(values: Float64[np.ndarray, " n"]) -> Ordered:
    return Ordered(*np.unique(values, return_inverse=True))


_LARGEST = float(np.finfo(np.float64).max)


def difference(first: Float64[np.ndarray, " n"], second: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """first - second of finite numbers or NaN, finite where neither is NaN."""
    with np.errstate(over="ignore"):
        return np.clip(first - second, -_LARGEST, _LARGEST)


_FAR = 1e100
"""Weights beyond this factor from 1, either way, are scaled back."""


def _near_one(weight: Float64[np.ndarray, " P"], item: Int64[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
    """Weights divided by the largest of their item, where sums of them would overflow or vanish."""
    far = (weight > _FAR) | (weight < 1 / _FAR)
    if not far.any():
        return weight
    most = np.zeros(int(item.max()) + 1)
    np.maximum.at(most, item, weight)
    return np.where(np.isin(item, item[far]), np.maximum(weight / most[item], 1 / _FAR), weight)


def flatten(
    preferences: Sequence[Sequence[Preference] | RankedPairs], prompts: Sequence[float], sizes: Sequence[int]
) -> Pairs:
    """All preferences as arrays; one with a probability below 0.5 is reversed.

    Args:
        preferences: [C] of each item.
        prompts: [C] equal for items of one conversation start.
        sizes: [C] replies of each item.

    Raises:
        BadInput: long ranked lists with more pairs, together, than `limit("pairs")`.
    """
    first = np.cumsum([0, *sizes])
    ranked = [(item, ranking) for item, ranking in enumerate(preferences) if isinstance(ranking, RankedPairs)]
    if sum(len(ranking) for _, ranking in ranked) > limit("pairs"):
        raise BadInput(f"{len(ranked):,} long ranked lists have {past('pairs')}; split them, or evaluate fewer at once")
    flat = [
        (item, preference)
        for item, stated in enumerate(preferences)
        if not isinstance(stated, RankedPairs)
        for preference in stated
    ]
    place = np.array([item for item, _ in flat], np.int64)
    winner = first[place] + np.array([preference.winner for _, preference in flat], np.int64)
    loser = first[place] + np.array([preference.loser for _, preference in flat], np.int64)
    probability = np.array([preference.probability for _, preference in flat], np.float64)
    reverse = probability < 0.5
    ahead, behind = np.where(reverse, loser, winner), np.where(reverse, winner, loser)
    probability = np.where(reverse, 1 - probability, probability)
    weight = _near_one(np.array([preference.weight for _, preference in flat], np.float64), place)
    if ranked:
        listed = [ranking.arrays() for _, ranking in ranked]
        sides = [
            np.concatenate([first[item] + pairs[side] for (item, _), pairs in zip(ranked, listed, strict=True)])
            for side in (0, 1)
        ]
        tie = np.concatenate([pairs[2] for pairs in listed])
        numbers, sizes_of_lists = [item for item, _ in ranked], [len(ranking) for _, ranking in ranked]
        place = np.concatenate([place, np.repeat(numbers, sizes_of_lists)])
        ahead, behind = (np.concatenate(two) for two in ((ahead, sides[0]), (behind, sides[1])))
        probability = np.concatenate([probability, np.where(tie, 0.5, 1.0)])
        weight = np.concatenate([weight, np.ones(len(tie))])
        if flat:  # the items' order: so far the ranked lists are last
            order = np.argsort(place, kind="stable")
            place, ahead, behind = place[order], ahead[order], behind[order]
            probability, weight = probability[order], weight[order]
    return Pairs(
        ahead=ahead,
        behind=behind,
        probability=probability,
        weight=weight,
        comparison=place,
        prompt=np.unique(np.array(prompts, np.float64), return_inverse=True)[1],
        first=first,
    )


@dataclass(frozen=True, eq=False)
class Sample:
    """C items with one scorer's scores: what every figure is a function of.

    Args:
        facts: [C]
        scores: [C] one score for each reply, in their order; a value may be NaN or infinite, which is a failure.
    """

    facts: tuple[ItemFacts, ...]
    scores: tuple[tuple[Score, ...], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if [len(each) for each in self.scores] != [len(facts.lengths) for facts in self.facts]:
            raise BadInput("the scores do not match the items; wanted one score per reply, in the same order")

    @cached_property
    def pairs(self) -> Pairs:
        """The P preferences as arrays, in the items' order and each item's own."""
        return flatten(
            [facts.preferences for facts in self.facts],
            [facts.prompt for facts in self.facts],
            [len(facts.lengths) for facts in self.facts],
        )

    @cached_property
    def values(self) -> Float64[np.ndarray, " N"]:
        """Every score; NaN for one that is not finite."""
        values = np.array([score.value for each in self.scores for score in each], np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    @cached_property
    def lengths(self) -> Float64[np.ndarray, " N"]:
        """Characters of every reply."""
        return np.array([length for facts in self.facts for length in facts.lengths], np.float64)

    @cached_property
    def margin(self) -> Float64[np.ndarray, " P"]:
        """Score of the preferred reply minus the other's; NaN where either failed. A difference too large for a
        float becomes the largest one, so that sums of margins make sense."""
        return difference(self.values[self.pairs.ahead], self.values[self.pairs.behind])

    @cached_property
    def wins(self) -> Float64[np.ndarray, " P"]:
        return wins(self.margin)

    @cached_property
    def sizes(self) -> Ordered:
        """The margins either way, 0 for a failure: the one order of a scorer's pairs that all figures share."""
        return ordered(np.abs(np.nan_to_num(self.margin)))

    @cached_property
    def longer(self) -> Float64[np.ndarray, " P"]:
        """Characters of the preferred reply minus the other's."""
        return self.lengths[self.pairs.ahead] - self.lengths[self.pairs.behind]

    @cached_property
    def by_longer(self) -> Ordered:
        return ordered(self.longer)

    @cached_property
    def strata(self) -> Int64[np.ndarray, " C"]:
        """Number of each item's subset."""
        return np.unique([facts.subset for facts in self.facts], return_inverse=True)[1]

    @cached_property
    def prompt_strata(self) -> Int64[np.ndarray, " G"]:
        """Stratum of each prompt number: prompts that have items in the same subsets share one."""
        within: dict[int, set[int]] = {}
        for prompt, subset in zip(self.pairs.prompt.tolist(), self.strata.tolist(), strict=True):
            within.setdefault(prompt, set()).add(subset)
        numbers: dict[frozenset[int], int] = {}
        strata = [numbers.setdefault(frozenset(within[prompt]), len(numbers)) for prompt in range(len(within))]
        return np.array(strata, np.int64)

    def with_scores(self, scores: Sequence[Sequence[Score]]) -> "Sample":
        """The same items with another scorer's scores; what is known of the items alone is shared."""
        other = Sample(self.facts, tuple(map(tuple, scores)))
        other.__dict__.update({name: vars(self)[name] for name in _OF_ITEMS if name in vars(self)})
        return other

    def take(self, places: Sequence[int]) -> "Sample":
        """The items at these places."""
        return Sample(tuple(self.facts[i] for i in places), tuple(self.scores[i] for i in places))


_OF_ITEMS = ("pairs", "lengths", "longer", "by_longer", "strata", "prompt_strata")
"""What a sample knows that no score changes."""


def sample_of(items: Sequence[Item | Comparison], scores: Sequence[Sequence[Score]]) -> Sample:
    """Items, or comparisons, with their scores.

    Args:
        scores: for each item one score per reply, in their order.
    """
    facts = tuple(facts_of(item if isinstance(item, Item) else as_item(item)) for item in items)
    return Sample(facts, tuple(map(tuple, scores)))
