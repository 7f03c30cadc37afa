"""The steps of a run as they will be cut into micro-batches, planned from lengths alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.training.feed.encoded_corpus import STREAM_SAMPLE
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.feeds import Feed, StreamFeed
from prefrank.training.foresight.flops import RowFlops
from prefrank.training.loop.step import plan_comparisons


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """One step before it is run.

    Args:
        number: of the step, from 0.
        examples: what it takes from.
        chosen: the comparisons.
        batches: lengths of the rows of each micro-batch.
        twice: of each, whether it may be scored twice, since its comparison is larger than a micro-batch.
    """

    number: int
    examples: Examples
    chosen: Sequence[int]
    batches: Sequence[Int64[np.ndarray, " _"]]
    twice: Sequence[bool]

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Of all rows."""
        return np.concatenate(self.batches)

    def flops(self, row: RowFlops) -> int:
        """Operations of the step."""
        again = sum(row.forward(batch) for batch, twice in zip(self.batches, self.twice, strict=True) if twice)
        return row.training(self.lengths) + again

    def work(self, row: RowFlops) -> int:
        """What its time goes by: operations; tokens, for a model whose layers are not known."""
        return self.flops(row) or int(self.lengths.sum())

    def largest(self, row: RowFlops) -> int:
        """The size of its largest micro-batch, in the same measure."""
        return max(row.training(lengths) or int(lengths.sum()) for lengths in self.batches)


MOST_PLANNED = 20_000
"""Steps that are planned; a longer epoch is forecast by its first ones, which are drawn at random like all."""


def plan_steps(feed: Feed, *, max_tokens: int) -> list[StepPlan]:
    """The steps of the first epoch, at most `MOST_PLANNED`; of streams the first ones, some hundreds of comparisons."""
    if isinstance(feed, StreamFeed):
        count = max(3, STREAM_SAMPLE // feed.per_step)
    else:
        count = min(feed.order.steps_per_epoch, MOST_PLANNED)
    plans = []
    for number in range(min(count, feed.steps)):
        examples, chosen = feed.take(number)
        plans.append(_plan(number, examples, chosen, max_tokens))
    return plans


def _plan(number: int, examples: Examples, chosen: Sequence[int], max_tokens: int) -> StepPlan:
    batches, twice = [], []
    for part in plan_comparisons(examples, chosen, max_tokens=max_tokens):
        spans = [np.diff(examples.starts[examples.groups[c] : examples.groups[c + 1] + 1]) for c in part]
        pieces = _cut(np.sort(np.concatenate(spans)), max_tokens)
        batches += pieces
        twice += [True] * (len(pieces) - 1) + [False]
    return StepPlan(number, examples, chosen, batches, twice)


def _cut(lengths: Int64[np.ndarray, " n"], max_tokens: int) -> list[Int64[np.ndarray, " _"]]:
    """As `plan_batches` does."""
    edges, tokens = [0], 0
    for place, length in enumerate(lengths.tolist()):
        if tokens and tokens + length > max_tokens:
            edges.append(place)
            tokens = 0
        tokens += length
    return np.split(lengths, edges[1:])
