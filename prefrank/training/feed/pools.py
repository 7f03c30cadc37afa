"""How an epoch draws from each training set: all, a share, a sample, few of each prompt, or balanced by length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Int64

from prefrank.errors import BadRecipe
from prefrank.training.feed.corpus import Corpus
from prefrank.training.recipe import Recipe
from prefrank.types import Comparison, RankedPairs


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The examples of one training set, and how an epoch draws from them.

    Args:
        name: of the set.
        examples: [n] their numbers.
        prompts: [n] equal numbers for equal prompts.
        sides: [n] 1 where the longer reply is preferred, -1 where the shorter is, 0 where neither.
        share: of the epoch's comparisons, relative to the other pools' shares; None: by its size.
        samples: comparisons of an epoch; None: all.
        per_prompt: most comparisons of one prompt in one pass; None: all.
        balanced: draw as many comparisons of side 1 as of side -1.
    """

    name: str
    examples: Int64[np.ndarray, " n"]
    prompts: Int64[np.ndarray, " n"]
    sides: Int64[np.ndarray, " n"]
    share: float | None = None
    samples: int | None = None
    per_prompt: int | None = None
    balanced: bool = False

    @property
    def plain(self) -> bool:
        return self.share is self.samples is self.per_prompt is None and not self.balanced

    def draw_pass(self, draw: np.random.Generator) -> Int64[np.ndarray, " m"]:
        """One pass in random order, after cap and balance; any prefix of it is balanced too."""
        chosen = draw.permutation(len(self.examples))
        if self.per_prompt is not None:
            chosen = chosen[_place_in_group(self.prompts[chosen]) < self.per_prompt]
        if self.balanced:
            sides = self.sides[chosen]
            longer, shorter, neither = (chosen[sides == side] for side in (1, -1, 0))
            count = min(len(longer), len(shorter))
            places = [(np.arange(count) + 0.25) / max(1, count), (np.arange(count) + 0.75) / max(1, count)]
            order = np.argsort(np.concatenate([*places, draw.random(len(neither))]), kind="stable")
            chosen = np.concatenate([longer[:count], shorter[:count], neither])[order]
        return self.examples[chosen]

    def account(self, drawn: int) -> dict[str, Any]:
        """How many comparisons an epoch takes from the pool and leaves, as plain values."""
        counts = np.unique(self.prompts, return_counts=True)[1]
        capped = int(np.minimum(counts, self.per_prompt or len(self.prompts)).sum())
        return {
            "name": self.name,
            "comparisons": len(self.examples),
            "drawn": drawn,
            "beyond_per_prompt": len(self.examples) - capped,
            "longer_preferred": int((self.sides == 1).sum()),
            "shorter_preferred": int((self.sides == -1).sum()),
        }


def make_pools(recipe: Recipe, corpus: Corpus, places: Int64[np.ndarray, " C"]) -> tuple[Pool, ...]:
    """How epochs draw from each training set.

    Args:
        places: of each of C examples, the place of its comparison in `corpus.training`.
    """
    prompts: dict[object, int] = {}
    prompt = np.array([prompts.setdefault(corpus.training[place].prompt, len(prompts)) for place in places], np.int64)
    side = np.array([side_of(corpus.training[place]) for place in places], np.int64)
    member = np.array(corpus.sets, np.int64)[places]
    pools = []
    for number, source in enumerate(recipe.datasets):
        examples = np.flatnonzero(member == number)
        if not len(examples) and (source.share or source.samples):
            raise BadRecipe(
                f"datasets[{number}] ({source.source}) has no comparison left to draw its share or samples from;"
                " take it out, or look at what was dropped with --dry-run"
            )
        pools.append(
            Pool(
                name=source.source,
                examples=examples,
                prompts=prompt[examples],
                sides=side[examples],
                share=source.share,
                samples=source.samples,
                per_prompt=source.per_prompt,
                balanced=recipe.length_balance,
            )
        )
    return tuple(pools)


def side_of(comparison: Comparison) -> Literal[-1, 0, 1]:
    """1 where longer replies are preferred on the whole, -1 where shorter ones are, in characters; 0 for neither.

    Every preference that is not a tie says for which side it speaks, with its weight and by how far its probability is
    from a half; replies of equal length say nothing.
    """
    if isinstance(comparison.preferences, RankedPairs):
        winner, loser, tie = comparison.preferences.arrays()
        lengths = np.array([len(reply) for reply in comparison.replies], np.int64)
        return cast(Literal[-1, 0, 1], int(np.sign(np.sign(lengths[winner] - lengths[loser])[~tie].sum())))
    total = 0.0
    for p in comparison.preferences:
        difference = len(comparison.replies[p.winner]) - len(comparison.replies[p.loser])
        total += ((difference > 0) - (difference < 0)) * p.weight * (p.probability - 0.5)
    return 1 if total > 0 else -1 if total < 0 else 0


def draw_epoch(pools: Sequence[Pool], draw: np.random.Generator) -> Int64[np.ndarray, " E"]:
    """The wanted number from every pool: the start of a pass, or several passes; all of it in a random order."""
    passes = [pool.draw_pass(draw) for pool in pools]
    parts: list[np.ndarray] = []
    for pool, first, count in zip(pools, passes, _counts(pools, [len(drawn) for drawn in passes]), strict=True):
        drawn, there = [first], len(first)
        while 0 < there < count:
            drawn.append(pool.draw_pass(draw))
            there += len(drawn[-1])
        parts.append(np.concatenate(drawn)[:count])
    return draw.permutation(np.concatenate(parts))


def _counts(pools: Sequence[Pool], sizes: Sequence[int]) -> list[int]:
    """Comparisons to draw from each pool. Shares divide the sum of the sizes, by largest remainders."""
    shares = np.array([pool.share or 0.0 for pool in pools])
    if not shares.any():
        return [size if pool.samples is None else pool.samples for pool, size in zip(pools, sizes, strict=True)]
    exact = sum(sizes) * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: sum(sizes) - counts.sum()]] += 1
    return counts.tolist()


def _place_in_group(groups: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each element, how many of the same group come before it."""
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(first, counts)
    return place
