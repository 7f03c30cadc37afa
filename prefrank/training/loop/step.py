"""The gradient of one optimizer step over any set of comparisons, in the memory of one micro-batch.

A reward loss couples rows only through their scores, and each of its terms only rows of one comparison. So whole
comparisons are split over parts of at most `max_tokens` tokens. A part is scored, the loss gives d loss / d score, one
number per row, and micro-batches are back-propagated one by one with their slice of it: the gradient cache of Gao et
al. 2021 (arXiv 2101.06983) with one number per sequence, and exact. A part of one micro-batch needs one forward pass. A
larger one, such as a prompt with hundreds of replies, needs a second for every micro-batch whose graph there was no
memory to keep; the generators are set back before it, so that both passes drop the same activations.

Rows of a network that reads from left to right share what they begin with, once in each micro-batch. Where a prompt is
in several, each adds its own share of the prompt's gradient, which is the sum of what its replies ask for.

Back-propagation always runs from the longest micro-batch to the shortest, so the number of graphs that memory allows
to keep changes no bit of the sum.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prefrank.text import plan_batches
from prefrank.training.feed.examples import Examples
from prefrank.training.loop.extent import Extent, extent_of
from prefrank.training.loop.parts import Lockstep, plan_comparisons, rows_of
from prefrank.training.losses.labels import Preferences, Weigh
from prefrank.training.losses.preference_loss import count_correct
from prefrank.types import Batch, Causal

Forward = Callable[[Batch], Float[Tensor, "n *H"]]
"""Scores a batch with its graph; the caller has set train mode and mixed precision."""
ScoreLoss = Callable[[Float[Tensor, "N *H"]], Float[Tensor, ""]]
PreferenceLoss = Callable[[Float[Tensor, "N *H"], Preferences], Float[Tensor, ""]]
Sharing = Callable[[Int64[np.ndarray, " T"]], AbstractContextManager[None]]
"""A network's `sharing`: what all micro-batches of these token ids have in common is computed once inside it."""


@dataclass(frozen=True, slots=True)
class StepSums:
    """Sums over this process's comparisons of one step.

    Args:
        loss: as the loss gives it, undivided.
        correct: preferences whose scores stand in the right order; ties and equal scores count one half.
        preferences: how many there were.
        tokens: of all rows, each counted whole.
        computed: tokens of all micro-batches: those that their rows share once, and none after the scored ones.
        not_finite: names of comparisons with a score or loss that is not finite; they added nothing to the gradient.
    """

    loss: float = 0.0
    correct: float = 0.0
    preferences: int = 0
    tokens: int = 0
    computed: int = 0
    not_finite: tuple[str, ...] = ()

    def __add__(self, other: "StepSums") -> "StepSums":
        return StepSums(
            self.loss + other.loss,
            self.correct + other.correct,
            self.preferences + other.preferences,
            self.tokens + other.tokens,
            self.computed + other.computed,
            self.not_finite + other.not_finite,
        )


class Graphs:
    """How many micro-batches of a part may keep their graphs: one, and more where `room` allows.

    Args:
        room: bytes that the graphs may take together; one micro-batch's is kept whatever it takes.
        own: tensors that are there anyway, such as parameters.
        causal: of the network.
    """

    def __init__(self, room: int, own: Iterable[Tensor] = (), causal: Causal | None = None) -> None:
        self.room, self._own, self._causal = room, tuple(own), causal
        self._measured: tuple[Extent, int] | None = None

    def num_kept(self, forward: Forward, batches: Sequence[Batch]) -> int:
        """How many of these batches, the longest ones (they come shortest first), may keep their graphs."""
        if not self.room or len(batches) == 1:
            return 1
        extents = [extent_of(batch, self._causal) for batch in reversed(batches)]
        if self._measured is None:  # the longest rows take the most; this pass is made once in a run
            before = _generators()
            self._measured = extents[0], saved_bytes(self._own, lambda: forward(batches[-1]))[1]
            _set_generators(before)
        extent, size = self._measured
        return max(1, int((np.cumsum([one.kept_over(extent) * size for one in extents]) <= self.room).sum()))


def saved_bytes(own: Iterable[Tensor], run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """A run's answer, and the bytes that autograd keeps for its backward pass: shared memory once, `own` not at all."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: WeakValueDictionary[int, torch.UntypedStorage] = WeakValueDictionary()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = run()
    return answer, sum(storage.nbytes() for storage in kept.values())


def accumulate_gradient(
    forward: Forward,
    examples: Examples,
    chosen: Sequence[int],
    loss: PreferenceLoss,
    *,
    divide_by: int | float,
    max_tokens: int,
    causal: Causal | None = None,
    weigh: Weigh = "comparison",
    graphs: Graphs | None = None,
    sharing: Sharing | None = None,
    lockstep: Lockstep | None = None,
) -> StepSums:
    """Add the gradient of `loss / divide_by` over the chosen comparisons to every parameter's `.grad`.

    Args:
        divide_by: the global count, over all devices, so that accumulating is exact however the step is split.
        max_tokens: of one micro-batch.
        causal: of a network that reads from left to right, so that rows share what they begin with.
        graphs: what memory there is for more than one micro-batch's graph.
        sharing: of the network, where it has one and is whole on this device.
        lockstep: with a model sharded over processes, the passes of all of them.
    """
    sums = StepSums()
    parts = plan_comparisons(examples, chosen, max_tokens=max_tokens, causal=causal)
    with _share(sharing, examples, chosen):
        for number, part in enumerate(parts):
            preferences = examples.labels(part, weigh=weigh)

            def total(scores: Float[Tensor, "N *H"], preferences: Preferences = preferences) -> Float[Tensor, ""]:
                return loss(scores, preferences.to(scores.device))

            def mean(scores: Float[Tensor, "N *H"], total: ScoreLoss = total) -> Float[Tensor, ""]:
                return total(scores) / divide_by

            batches = plan_batches(rows_of(examples, part), max_tokens=max_tokens, causal=causal)
            spare = None if lockstep is None else (lockstep.passes(number), lockstep.spare)
            scores = backpropagate(forward, batches, mean, graphs=graphs, spare=spare)
            computed = sum(len(batch.ids) for batch in batches)
            sums = sums + _sum_part(scores, examples, part, preferences, total, computed=computed)
        if lockstep is not None:
            for number in range(len(parts), lockstep.num_parts):
                _repeat_spare(forward, lockstep, number)
    return sums


def _share(sharing: Sharing | None, examples: Examples, chosen: Sequence[int]) -> AbstractContextManager[None]:
    if sharing is None or not len(chosen):
        return nullcontext()
    return sharing(np.concatenate([examples.tokens_of(comparison) for comparison in chosen]).astype(np.int64))


def backpropagate(
    forward: Forward,
    batches: Sequence[Batch],
    loss: ScoreLoss,
    *,
    graphs: Graphs | None = None,
    spare: tuple[int, Batch] | None = None,
) -> Float[Tensor, "N *H"]:
    """Add d loss(scores) / d parameters to every `.grad`; returns the scores of the batches' rows, in their order.

    Parameters of the loss itself get their gradient too. A loss that is not finite adds nothing.

    Args:
        batches: of all rows, as `plan_batches` makes them.
        spare: passes with a graph to make in all, and what to run in those beyond the rows' own.
    """
    num_kept = 1 if spare or graphs is None else graphs.num_kept(forward, batches)
    generators, parts = [], []
    for number, batch in enumerate(batches):
        generators.append(_generators())
        if number == len(batches) - num_kept:
            _idle(forward, spare, passes=len(batches), graph=False)
        with torch.set_grad_enabled(number >= len(batches) - num_kept):
            parts.append(forward(batch))
    after = _generators()
    scores = _restore_order([part.detach() for part in parts], batches).requires_grad_()
    value = loss(scores)
    gradient = torch.zeros_like(scores)
    if torch.isfinite(value):
        value.backward()
        gradient = gradient if scores.grad is None else scores.grad
    elif spare is None:
        return scores.detach()
    for batch, states in zip(reversed(batches), reversed(generators), strict=True):
        part = parts.pop()
        if part.grad_fn is None:
            _set_generators(states)
            part = forward(batch)
        part.backward(gradient[torch.from_numpy(batch.rows).to(gradient.device)])
        del part
    _set_generators(after)
    _idle(forward, spare, passes=len(batches), graph=True)
    return scores.detach()


def _repeat_spare(forward: Forward, lockstep: Lockstep, part: int) -> None:
    """The passes of a part that this process has none of."""
    spare = lockstep.passes(part), lockstep.spare
    _idle(forward, spare, passes=1, graph=False)
    _idle(forward, spare, passes=0, graph=True)


def _idle(forward: Forward, spare: tuple[int, Batch] | None, *, passes: int, graph: bool) -> None:
    """Make the passes that other processes make beyond this one's: without a graph, or forward and backward."""
    if spare is None:
        return
    wanted, batch = spare
    for _ in range(wanted - passes):
        with torch.set_grad_enabled(graph):
            scores = forward(batch)
        if graph:
            scores.backward(torch.zeros_like(scores))


def _restore_order(parts: Sequence[Float[Tensor, "_ *H"]], batches: Sequence[Batch]) -> Float[Tensor, "N *H"]:
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
    scores: Float[Tensor, "N *H"],
    examples: Examples,
    part: Sequence[int],
    preferences: Preferences,
    loss: ScoreLoss,
    *,
    computed: int,
) -> StepSums:
    with torch.no_grad():
        value = loss(scores)
    scores = scores.cpu()
    owner = np.repeat(part, [examples.size(comparison) for comparison in part])
    finite = torch.isfinite(scores).reshape(len(scores), -1).all(1).numpy()
    bad = dict.fromkeys(owner[~finite].tolist())
    if not bad and not torch.isfinite(value):
        bad = dict.fromkeys(part)
    return StepSums(
        loss=float(value),
        correct=float(count_correct(scores, preferences).sum()),
        preferences=len(preferences.winner),
        tokens=sum(examples.tokens(comparison) for comparison in part),
        computed=computed,
        not_finite=tuple(examples.names[comparison] for comparison in bad),
    )
