"""The gradient of one optimiser step over any set of comparisons, in the memory of one micro-batch.

A reward loss couples rows only through their scores, and each of its terms only rows of one comparison. So whole
comparisons are split over micro-batches of at most `max_tokens` tokens, each with its own forward and backward pass.
A comparison (or a loss over many) too big for one micro-batch is scored once without a graph; the loss gives
d loss / d score, one number per row; then each micro-batch is scored again and back-propagates its slice. That is the
gradient cache of Gao et al. 2021 (arXiv 2101.06983) with one number per sequence, and exact. The generators are set
back before the second pass, so that both passes drop the same activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefrank.text import plan_batches
from prefrank.training.examples import Examples
from prefrank.training.losses import Preferences, Weigh, number_rows
from prefrank.types import Batch, Row

Forward = Callable[[Batch], Float[Tensor, " n"]]
"""Scores a batch with its graph; the caller has set train mode and mixed precision."""
ScoreLoss = Callable[[Float[Tensor, " N"]], Float[Tensor, ""]]
PreferenceLoss = Callable[[Float[Tensor, " N"], Preferences], Float[Tensor, ""]]


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums over this process's comparisons of one step.

    Args:
        loss: as the loss gives it, undivided.
        correct: preferences in the right order; ties and equal scores count one half.
        preferences: how many there were.
        tokens: of all rows.
        not_finite: names of comparisons with a score or loss that is not finite; they added nothing to the gradient.
    """

    loss: float
    correct: float
    preferences: int
    tokens: int
    not_finite: tuple[str, ...]


def accumulate_gradient(
    forward: Forward,
    examples: Examples,
    chosen: Sequence[int],
    loss: PreferenceLoss,
    *,
    divide_by: float,
    max_tokens: int,
    weigh: Weigh = "comparison",
) -> StepSums:
    """Add the gradient of `loss / divide_by` over the chosen comparisons to every parameter's `.grad`.

    Args:
        divide_by: the global count, over all devices, so that accumulation is exact however it is split.
        max_tokens: of one micro-batch.
    """
    sums = []
    for part in plan_comparisons(examples, chosen, max_tokens=max_tokens):
        rows = [examples.rows(c) for c in part]
        firsts = [sum(map(len, rows[:i])) for i in range(len(rows))]
        preferences = number_rows(
            [examples.preferences[c] for c in part], firsts, weigh=weigh, weights=[examples.weights[c] for c in part]
        )
        sums.append(_accumulate_part(forward, rows, preferences, loss, divide_by, max_tokens, names(examples, part)))
    return StepSums(
        loss=sum(one.loss for one in sums),
        correct=sum(one.correct for one in sums),
        preferences=sum(one.preferences for one in sums),
        tokens=sum(one.tokens for one in sums),
        not_finite=tuple(name for one in sums for name in one.not_finite),
    )
