"""The steps of a run as they will be cut into micro-batches, before anything is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.text import plan_batches
from prefrank.training.feed.encoded_corpus import STREAM_SAMPLE
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.feeds import Feed, StreamFeed
from prefrank.training.foresight.flops import Flops
from prefrank.training.loop.extent import Extent, extent_apart, extent_of
from prefrank.training.loop.parts import plan_comparisons, rows_of
from prefrank.types import Causal


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """One step before it is run.

    Args:
        number: of the step, from 0.
        examples: what it takes from.
        chosen: the comparisons.
        batches: its micro-batches.
        twice: of each, whether it may be scored twice, since its comparison is larger than a micro-batch.
    """

    number: int
    examples: Examples
    chosen: Sequence[int]
    batches: Sequence[Extent]
    twice: Sequence[bool]

    @property
    def tokens(self) -> int:
        """Of all rows, each counted whole."""
        return sum(map(self.examples.tokens, self.chosen))

    @property
    def computed(self) -> int:
        """Tokens of all micro-batches, in which rows of a decoder share what they begin with."""
        return sum(batch.tokens for batch in self.batches)

    def flops(self, flops: Flops) -> int:
        """Operations of the step."""
        again = sum(flops.forward(batch) for batch, twice in zip(self.batches, self.twice, strict=True) if twice)
        return sum(map(flops.training, self.batches)) + again

    def work(self, flops: Flops) -> int:
        """What its time goes by: operations; tokens, for a model whose layers are not known."""
        return self.flops(flops) or self.computed

    def largest(self, flops: Flops) -> int:
        """The size of its largest micro-batch, in the same measure."""
        return max(flops.training(batch) or batch.tokens for batch in self.batches)


MOST_PLANNED = 20_000
"""Steps that are planned; a longer epoch is forecast by its first ones, which are drawn at random like all."""


def plan_steps(feed: Feed, *, max_tokens: int, causal: Causal | None = None) -> list[StepPlan]:
    """The steps of the first epoch, at most `MOST_PLANNED`; of streams the first ones, some hundreds of comparisons."""
    if isinstance(feed, StreamFeed):
        count = max(3, STREAM_SAMPLE // feed.per_step)
    else:
        count = min(feed.order.steps_per_epoch, MOST_PLANNED)
    plans = []
    for number in range(min(count, feed.steps)):
        examples, chosen = feed.take(number)
        plans.append(_plan(number, examples, chosen, max_tokens, causal))
    return plans


def _plan(number: int, examples: Examples, chosen: Sequence[int], max_tokens: int, causal: Causal | None) -> StepPlan:
    batches, twice = [], []
    for part in plan_comparisons(examples, chosen, max_tokens=max_tokens, causal=causal):
        if causal is None:  # from lengths alone
            spans = [np.diff(examples.starts[examples.groups[c] : examples.groups[c + 1] + 1]) for c in part]
            pieces = [extent_apart(lengths, None) for lengths in _cut(np.sort(np.concatenate(spans)), max_tokens)]
        else:
            planned = plan_batches(rows_of(examples, part), max_tokens=max_tokens, causal=causal)
            pieces = [extent_of(batch, causal) for batch in planned]
        batches += pieces
        twice += [True] * (len(pieces) - 1) + [False]
    return StepPlan(number, examples, chosen, batches, twice)


def _cut(lengths: Int64[np.ndarray, " n"], max_tokens: int) -> list[Int64[np.ndarray, " _"]]:
    """Cuts rows that share nothing into micro-batches as `plan_batches` does."""
    edges, tokens = [0], 0
    for place, length in enumerate(lengths.tolist()):
        if tokens and tokens + length > max_tokens:
            edges.append(place)
            tokens = 0
        tokens += length
    return np.split(lengths, edges[1:])
