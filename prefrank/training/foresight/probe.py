"""The first steps of a run, made to see what they take, on weights that are then thrown away.

Four steps are run as the loop runs them: the first warms up and makes the optimizer's state, the next two are timed,
and the last is the one with the largest micro-batch of those planned, whose activations are counted. Then a part of an
evaluation set is scored, and a checkpoint written and deleted. The rest of the run follows by numbers of operations
(flops.py), steps and bytes.

On a CPU memory is what the system says the process had in memory at most (VmHWM), not a sum of tensors: the allocator's
holes and the scratch memory of matrix products are in it. Weights are mapped from their file; every one is read once
before the measurement starts, as saving would do, so that their pages count as weights.
"""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from jaxtyping import Int64
from torch import Tensor

from prefrank.errors import CannotWrite
from prefrank.io.atomic import temporary_folder
from prefrank.model import Network, score_batches
from prefrank.text import TextEncoder, plan_batches
from prefrank.training.feed.examples import Examples
from prefrank.training.feed.order import seed_step
from prefrank.training.foresight.flops import flops_of
from prefrank.training.foresight.memory import Memory, average_bytes, forget_peak, peak, size_of
from prefrank.training.foresight.step_plans import StepPlan
from prefrank.training.loop.extent import extent_apart
from prefrank.training.loop.optim import make_optimizer, rate_factor, set_rates
from prefrank.training.loop.parts import rows_of
from prefrank.training.loop.processes import free_memory
from prefrank.training.loop.step import Forward, Graphs, accumulate_gradient, saved_bytes
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
        steps: all optimizer steps that are left; a range if the two timed ones differ.
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


class Probe:
    """A network, loss and optimizer to make steps with; nothing of it is kept.

    Args:
        steps: that are left of the run.
    """

    def __init__(
        self, network: Network, loss: PreferenceLoss, recipe: Recipe, encoder: TextEncoder, *, steps: int
    ) -> None:
        self.network, self.loss, self.recipe, self.encoder, self.steps = network, loss, recipe, encoder, steps
        self.device = next(network.parameters()).device
        self.bf16, self.flops = use_bf16(recipe, self.device), flops_of(network)
        self.trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.averages = average_bytes(self.trained, recipe, steps=steps)
        self.optimizer = make_optimizer(network, recipe)
        loss.add_to(self.optimizer, recipe)
        room = free_memory(recipe, self.optimizer, self.device)
        self.graphs = Graphs(room, network.parameters(), network.causal)

    def run(
        self,
        plans: Sequence[StepPlan],
        sets: Mapping[str, Examples],
        *,
        preparing: float,
        evaluations: int,
        saves: int,
    ) -> tuple[Memory, Seconds]:
        """Memory at the peak, and seconds of all steps.

        Args:
            plans: of steps to choose from; the run's others are like them.
            sets: to evaluate on.
            preparing: seconds that reading and encoding took.
            evaluations: of the run.
            saves: checkpoints of the run that can be resumed from.

        Raises:
            CannotWrite: the disk is full.
        """
        for parameter in self.network.parameters():
            parameter.detach().sum()
        weights, used = size_of(self.network.parameters()), psutil.Process().memory_info().rss
        process = 0 if self.device.type == "cuda" else max(0, used - weights)
        forget_peak()
        self._step(plans[0], self._forward)
        work, seconds = sum(plan.work(self.flops) for plan in plans) / len(plans), []
        for plan in (plans[1 % len(plans)], plans[2 % len(plans)]):
            passes, update = self._step(plan, self._forward)
            seconds.append(self.steps * (passes * work / plan.work(self.flops) + update))
        activations = self._activations(max(plans, key=lambda plan: plan.largest(self.flops)))
        evaluating = evaluations * self._evaluate(sets) if evaluations else 0.0
        best, whole = self._save()
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        optimizer = size_of(value for value in states if isinstance(value, Tensor))
        gradients, highest = size_of(self.trained), peak(self.device)
        if highest is not None:  # freed memory that the process kept is used again, and counts once
            process = max(0, min(process, highest - weights - gradients - optimizer))
        parts = process + weights + gradients + optimizer + activations
        memory = Memory(
            *(process, weights, gradients, optimizer, self.averages, activations),
            temporary=max(0, (highest or 0) - parts),
            peak=self.averages + (highest or parts),
            measured=highest is not None,
        )
        return memory, Seconds(
            preparing=(preparing, preparing),
            steps=(min(seconds), max(seconds)),
            evaluating=(evaluating, evaluating),
            saving=(whole * saves + best * min(1, evaluations), whole * saves + best * evaluations),
        )

    def _step(self, plan: StepPlan, forward: Forward) -> tuple[float, float]:
        """One step as the loop makes it; returns the seconds of its passes and of its update."""
        recipe = self.recipe
        seed_step(recipe.seed, step=plan.number, process=0)
        set_rates(self.optimizer, rate_factor(plan.number, steps=self.steps, recipe=recipe))
        self.network.train()
        self.optimizer.zero_grad()
        began = self._clock()
        accumulate_gradient(
            forward,
            plan.examples,
            plan.chosen,
            self.loss,
            divide_by=len(plan.chosen),
            max_tokens=recipe.max_tokens,
            causal=self.network.causal,
            weigh=recipe.weigh,
            graphs=self.graphs,
            sharing=self.network.sharing,
        )
        passed = self._clock()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_grad_norm or float("inf"))
        self.optimizer.step()
        return passed - began, self._clock() - passed

    def _forward(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(batch)

    def _activations(self, plan: StepPlan) -> int:
        """Bytes that a forward pass keeps for its backward pass, the most in a step."""
        kept = []

        def forward(batch: Batch) -> Tensor:
            scores, size = saved_bytes(self.network.parameters(), lambda: self._forward(batch))
            kept.append(size)
            return scores

        self._step(plan, forward)
        return max(kept)

    def _evaluate(self, sets: Mapping[str, Examples]) -> float:
        """Seconds of one evaluation of all sets, from a part of the first."""
        first, causal = next(iter(sets.values())), self.network.causal
        chunk = range(min(len(first), self.recipe.per_device_eval_batch_size))
        rows = rows_of(first, chunk)
        batches = plan_batches(rows, max_tokens=self.recipe.max_tokens, causal=causal)
        began = self._clock()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            score_batches(self.network, batches)
        seconds = self._clock() - began

        def apart(lengths: Int64[np.ndarray, " N"]) -> int:
            return self.flops.forward(extent_apart(lengths, causal))

        done = apart(np.array([len(row.ids) for row in rows]))  # what they share, the others share too
        return seconds * sum(apart(np.diff(examples.starts)) for examples in sets.values()) / max(1, done)

    def _save(self) -> tuple[float, float]:
        """Seconds to write a checkpoint without what resuming needs, and one with it.

        Raises:
            CannotWrite: the disk is full.
        """
        beside = Path(self.recipe.output_dir).absolute().parents  # not in it, which is not ours to change
        writable = (folder for folder in beside if folder.is_dir() and os.access(folder, os.W_OK))
        place = next(writable, Path(tempfile.gettempdir()))
        record = {"recipe": self.recipe.model_dump(mode="json")}
        try:
            with temporary_folder(place / "dry-run") as folder:
                began = self._clock()
                save_checkpoint(folder / "best", self.network, self.encoder, record, state=None, previous=None)
                seconds = self._clock() - began
        except CannotWrite as error:
            why = getattr(error.__cause__, "strerror", None) or error
            raise CannotWrite(f"cannot write {self.recipe.output_dir}: {why}; choose another place") from error
        more = 2 * size_of(self.trained) + self.averages
        return seconds, seconds * (1 + more / max(1, size_of(self.network.parameters())))

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
