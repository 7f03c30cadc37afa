"""The first steps of a run, made to see what they take, on weights that are then thrown away.

Four steps are run as the loop runs them: the first warms up and makes the optimiser's state, the next two are timed,
and one is the step with the largest micro-batch of those planned, the first epoch's, whose peak counts. Then a part of
an evaluation set is scored, and a checkpoint written and deleted. The rest of the run follows by numbers of operations
(flops.py), steps and bytes.

Surprising: on a CPU memory is what the system says the process had in memory at most (VmHWM), not a sum of tensors: the
allocator's holes and the scratch memory of matrix products are in it. Weights are mapped from their file; every one is
read once before the measurement starts, as saving would do, so that their pages count as weights.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from prefrank.errors import CannotWrite
from prefrank.io.atomic import temporary_folder
from prefrank.model import Network, score_batches
from prefrank.text import TextEncoder, plan_batches
from prefrank.training.feed.encoded_corpus import STREAM_SAMPLE
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.feeds import Feed, StreamFeed
from prefrank.training.feed.order import seed_step
from prefrank.training.foresight.flops import RowFlops
from prefrank.training.foresight.memory import LiveBytes, Memory, average_bytes, forget_peak, peak, resident, size_of
from prefrank.training.loop.optim import make_optimizer, rate_factor, set_rates
from prefrank.training.loop.processes import free_memory
from prefrank.training.loop.step import Graphs, accumulate_gradient, plan_comparisons, rows_of
from prefrank.training.losses.preference_loss import PreferenceLoss
from prefrank.training.recipe import Recipe
from prefrank.training.records.run_checkpoints import save_checkpoint
from prefrank.training.start import use_bf16
from prefrank.types import Batch

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds of a run, each from the least to the most expected.

    Args:
        preparing: reading and encoding the data, as it took here.
        steps: all optimiser steps that are left; a range if the two timed ones differ.
        evaluating: all evaluations.
        saving: all checkpoints; at the least the first evaluation alone is the best, at the most every one.
    """

    preparing: Range
    steps: Range
    evaluating: Range
    saving: Range

    @property
    def total(self) -> Range:
        parts = (self.preparing, self.steps, self.evaluating, self.saving)
        return sum(part[0] for part in parts), sum(part[1] for part in parts)


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
        again = sum(row.forward(one) for one, twice in zip(self.batches, self.twice, strict=True) if twice)
        return row.training(self.lengths) + again

    def work(self, row: RowFlops) -> int:
        """What its time goes by: operations; tokens, for a model whose layers are not known."""
        return self.flops(row) or int(self.lengths.sum())

    def largest(self, size: Callable[[np.ndarray], float]) -> float:
        """The size of its largest micro-batch, given that of rows of some lengths."""
        return max(map(size, self.batches))


MOST_PLANNED = 20_000
"""Steps that are planned; a longer epoch is foreseen by its first ones, which are drawn at random like all."""


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


class Probe:
    """A network, loss and optimiser to make steps with; nothing of it is kept."""

    def __init__(
        self, network: Network, loss: PreferenceLoss, recipe: Recipe, encoder: TextEncoder, *, steps: int
    ) -> None:
        self.network, self.loss, self.recipe, self.encoder, self.steps = network, loss, recipe, encoder, steps
        self.device = next(network.parameters()).device
        self.bf16 = use_bf16(recipe, self.device)
        self.optimizer = make_optimizer(network, recipe)
        loss.add_to(self.optimizer, recipe)
        self.graphs = Graphs(free_memory(recipe, self.optimizer, self.device), network.parameters())
        self.sharing = getattr(network, "sharing", None)

    def run(
        self,
        plans: Sequence[StepPlan],
        row: RowFlops,
        sets: Mapping[str, Examples],
        *,
        preparing: float,
        evaluations: int,
        saves: int,
    ) -> tuple[Memory, Seconds]:
        """Memory at the peak, and seconds of all steps.

        Args:
            plans: of steps to choose from; the run's others are like them.
            row: what its rows cost.
            sets: to evaluate on.
            preparing: seconds that reading and encoding took.
            evaluations: of the run.
            saves: checkpoints of the run that can be resumed from.

        Raises:
            CannotWrite: the disk is full.
        """
        weights = list(self.network.parameters())
        for one in weights:
            one.detach().sum()
        process = 0 if self.device.type == "cuda" else max(0, resident() - size_of(weights))
        forget_peak()
        largest = max(plans, key=lambda plan: plan.largest(self._size))
        self._step(plans[0])
        timed = [self._step(plans[number % len(plans)]) for number in (1, 2)]
        activations = self._activations(largest)
        if largest.number > 2 or largest.number == 0:
            self._step(largest)
        mean = sum(one.work(row) for one in plans) / len(plans)
        steps = sorted(self.steps * (mean * passing / plan.work(row) + update) for plan, passing, update in timed)
        evaluating = evaluations * self._evaluate(sets, row) if evaluations else 0.0
        best, whole = self._save()
        seconds = Seconds(
            preparing=(preparing, preparing),
            steps=(steps[0], steps[-1]),
            evaluating=(evaluating, evaluating),
            saving=(whole * saves + best * min(1, evaluations), whole * saves + best * evaluations),
        )
        return self._memory(process, activations), seconds

    def _memory(self, process: int, activations: int) -> Memory:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        weights, gradients = size_of(self.network.parameters()), size_of(trained)
        states = [one for state in self.optimizer.state.values() for one in state.values() if isinstance(one, Tensor)]
        averages = average_bytes(trained, self.recipe, steps=self.steps)
        parts = process + weights + gradients + size_of(states) + activations
        most = peak(self.device)
        return Memory(
            process,
            weights,
            gradients,
            size_of(states),
            averages,
            activations,
            temporary=max(0, (most or 0) - parts),
            peak=averages + (most or parts),
            measured=most is not None,
        )

    def _step(self, plan: StepPlan) -> tuple[StepPlan, float, float]:
        """One step as the loop makes it; returns the seconds of its passes and of its update."""
        recipe = self.recipe
        seed_step(recipe.seed, step=plan.number, process=0)
        set_rates(self.optimizer, rate_factor(plan.number, steps=self.steps, recipe=recipe))
        self.network.train()
        self.optimizer.zero_grad()
        began = self._clock()
        accumulate_gradient(
            self._forward,
            plan.examples,
            plan.chosen,
            self.loss,
            divide_by=len(plan.chosen),
            max_tokens=recipe.max_tokens,
            weigh=recipe.weigh,
            graphs=self.graphs,
            sharing=self.sharing,
        )
        passed = self._clock()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_grad_norm or float("inf"))
        self.optimizer.step()
        return plan, passed - began, self._clock() - passed

    def _forward(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(batch)

    def _activations(self, plan: StepPlan) -> int:
        """Bytes that stay after the forward pass of the step's longest micro-batch."""
        parts = plan_comparisons(plan.examples, plan.chosen, max_tokens=self.recipe.max_tokens)
        batches = [
            batch
            for part in parts
            for batch in plan_batches(rows_of(plan.examples, part), max_tokens=self.recipe.max_tokens)
        ]
        largest = max(batches, key=lambda batch: self._size(np.diff(batch.starts)))
        self.network.train()
        self.optimizer.zero_grad()
        with LiveBytes(self.network.parameters()) as live:
            scores = self._forward(largest)
            kept = live.now
            del scores
        return kept

    def _size(self, lengths: Int64[np.ndarray, " n"]) -> float:
        """How much a micro-batch keeps, by the terms of Korthikanti et al. 2022, arXiv 2205.05198, equation 1."""
        config = self.network.config
        width, heads = config.get("hidden_size") or 1, config.get("num_attention_heads") or 1
        return float(34 * width * lengths.sum() + 5 * heads * (lengths.astype(float) ** 2).sum())

    def _evaluate(self, sets: Mapping[str, Examples], row: RowFlops) -> float:
        """Seconds of one evaluation of all sets."""
        first = next(iter(sets.values()))
        chunk = range(min(len(first), self.recipe.per_device_eval_batch_size))
        batches = plan_batches(rows_of(first, chunk), max_tokens=self.recipe.max_tokens)
        began = self._clock()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            score_batches(self.network, batches)
        seconds = self._clock() - began
        done = sum(row.forward(np.diff(batch.starts)) for batch in batches)
        return seconds * sum(row.forward(np.diff(one.starts)) for one in sets.values()) / max(1, done)

    def _save(self) -> tuple[float, float]:
        """Seconds to write a checkpoint without what resuming needs, and one with it.

        Raises:
            CannotWrite: the disk is full.
        """
        beside = Path(self.recipe.output_dir).absolute().parents  # not in it, which is not ours to change
        place = next((one for one in beside if one.is_dir() and os.access(one, os.W_OK)), Path(tempfile.gettempdir()))
        record = {"recipe": self.recipe.model_dump(mode="json")}
        try:
            with temporary_folder(place / "dry-run") as folder:
                began = self._clock()
                save_checkpoint(folder / "best", self.network, self.encoder, record, state=None, previous=None)
                seconds = self._clock() - began
        except CannotWrite as error:
            why = getattr(error.__cause__, "strerror", None) or error
            raise CannotWrite(f"cannot write {self.recipe.output_dir}: {why}; choose another place") from error
        weights = size_of(self.network.parameters())
        trained = [p for p in self.network.parameters() if p.requires_grad]
        more = 2 * size_of(trained) + average_bytes(trained, self.recipe, steps=self.steps)
        return seconds, seconds * (1 + more / max(1, weights))

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
