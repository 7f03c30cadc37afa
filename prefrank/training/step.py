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

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefrank.text import plan_batches
from prefrank.training.examples import Examples
from prefrank.training.losses import Preferences, Weigh, count_correct, number_rows
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
        correct: preferences whose scores stand in the right order; ties and equal scores count one half.
        preferences: how many there were.
        tokens: of all rows.
        not_finite: names of comparisons with a score or loss that is not finite; they added nothing to the gradient.
    """

    loss: float = 0.0
    correct: float = 0.0
    preferences: int = 0
    tokens: int = 0
    not_finite: tuple[str, ...] = ()

    def __add__(self, other: "StepSums") -> "StepSums":
        return StepSums(
            self.loss + other.loss,
            self.correct + other.correct,
            self.preferences + other.preferences,
            self.tokens + other.tokens,
            self.not_finite + other.not_finite,
        )


def accumulate_gradient(
    forward: Forward,
    examples: Examples,
    chosen: Sequence[int],
    loss: PreferenceLoss,
    *,
    divide_by: int,
    max_tokens: int,
    weigh: Weigh = "comparison",
) -> StepSums:
    """Add the gradient of `loss / divide_by` over the chosen comparisons to every parameter's `.grad`.

    Args:
        divide_by: the global count, over all devices, so that accumulating is exact however the step is split.
        max_tokens: of one micro-batch.
    """
    sums = StepSums()
    for part in plan_comparisons(examples, chosen, max_tokens=max_tokens):
        preferences = preferences_of(examples, part, weigh=weigh)

        def mean(scores: Float[Tensor, " N"], preferences: Preferences = preferences) -> Float[Tensor, ""]:
            return loss(scores, preferences.to(scores.device)) / divide_by

        scores = backpropagate(forward, rows_of(examples, part), mean, max_tokens=max_tokens).cpu()
        sums = sums + _sum_part(scores, examples, part, preferences, loss)
    return sums


def plan_comparisons(examples: Examples, chosen: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split comparisons into parts of at most `max_tokens` tokens, like lengths together; a longer one stands alone."""
    parts: list[list[int]] = []
    room = -1
    for comparison in sorted(chosen, key=examples.longest):
        tokens = examples.tokens(comparison)
        if tokens > room:
            parts.append([])
            room = max_tokens
        parts[-1].append(comparison)
        room -= tokens
    return parts


def rows_of(examples: Examples, chosen: Sequence[int]) -> list[Row]:
    """Every row of the chosen comparisons, in their order."""
    return [row for comparison in chosen for row in examples.rows(comparison)]


def preferences_of(examples: Examples, chosen: Sequence[int], *, weigh: Weigh = "comparison") -> Preferences:
    """The preferences of the chosen comparisons, between the rows that `rows_of` gives."""
    sizes = [examples.size(comparison) for comparison in chosen]
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    groups = [examples.preferences[comparison] for comparison in chosen]
    return number_rows(groups, firsts, weigh=weigh, weights=[examples.weights[comparison] for comparison in chosen])


def backpropagate(forward: Forward, rows: Sequence[Row], loss: ScoreLoss, *, max_tokens: int) -> Float[Tensor, " N"]:
    """Add d loss(scores) / d parameters to every `.grad`; returns the scores of the rows, in their order.

    One micro-batch keeps its graph; several are scored twice, so that only one graph lives at a time. A loss that is
    not finite adds nothing.
    """
    batches = plan_batches(rows, max_tokens=max_tokens)
    return _direct(forward, batches[0], loss) if len(batches) == 1 else _cached(forward, batches, loss)


def _direct(forward: Forward, batch: Batch, loss: ScoreLoss) -> Float[Tensor, " N"]:
    scores = _restore_order([forward(batch)], [batch])
    value = loss(scores)
    if torch.isfinite(value):
        value.backward()
    return scores.detach()


def _cached(forward: Forward, batches: Sequence[Batch], loss: ScoreLoss) -> Float[Tensor, " N"]:
    generators, parts = [], []
    with torch.no_grad():
        for batch in batches:
            generators.append(_generators())
            parts.append(forward(batch))
    scores = _restore_order(parts, batches).requires_grad_()
    value = loss(scores)
    if torch.isfinite(value):
        (slope,) = torch.autograd.grad(value, scores)
        for batch, states in zip(batches, generators, strict=True):
            _set_generators(states)
            forward(batch).backward(slope[torch.from_numpy(batch.rows).to(slope.device)])
    return scores.detach()


def _restore_order(parts: Sequence[Float[Tensor, " _"]], batches: Sequence[Batch]) -> Float[Tensor, " N"]:
    """Scores of all batches, each back in its row's place."""
    places = torch.from_numpy(np.concatenate([batch.rows for batch in batches])).to(parts[0].device)
    return torch.cat(list(parts))[torch.argsort(places)]


def _generators() -> list[Tensor]:
    """The state of the CPU's generator, and of this process's GPU where there is one."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state()] if torch.cuda.is_available() else states


def _set_generators(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


def _sum_part(
    scores: Float[Tensor, " N"], examples: Examples, part: Sequence[int], preferences: Preferences, loss: PreferenceLoss
) -> StepSums:
    value = loss(scores, preferences)
    owner = np.repeat(part, [examples.size(comparison) for comparison in part])
    bad = dict.fromkeys(owner[~torch.isfinite(scores).numpy()].tolist())
    if not bad and not torch.isfinite(value):
        bad = dict.fromkeys(part)
    return StepSums(
        loss=float(value),
        correct=float(count_correct(scores, preferences).sum()),
        preferences=len(preferences.winner),
        tokens=sum(examples.tokens(comparison) for comparison in part),
        not_finite=tuple(examples.names[comparison] for comparison in bad),
    )
