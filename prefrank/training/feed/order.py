"""Which comparisons make up which step, and which random numbers a step draws: pure functions of seed and step.

An epoch is one draw. Without options it is a permutation of everything; shares, samples, caps and length balance make
it a selection, drawn anew for every epoch. With a cap and length balance together, epochs differ a little in size, so
the first step of an epoch is found by drawing the epochs before it. Otherwise all epochs have the same size.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from prefrank.errors import BadRecipe
from prefrank.limits import limit, past
from prefrank.training.feed.pools import Pool, draw_epoch
from prefrank.training.recipe import Recipe


class Order:
    """A new draw for every epoch, cut into steps; an epoch's last step may be smaller.

    Sorting by length happens inside a step and plays no part here.

    Args:
        size: training comparisons.
        per_step: comparisons of a step.
        seed: of the draws.
        pools: how epochs draw; None: each epoch is a permutation of all.
    """

    def __init__(self, size: int, *, per_step: int, seed: int, pools: Sequence[Pool] | None = None) -> None:
        self.size, self.per_step, self.seed = size, per_step, seed
        self._pools = None if pools is None or all(pool.plain for pool in pools) else tuple(pools)
        self._varies = any(pool.balanced and pool.per_prompt is not None for pool in self._pools or ())
        self._number, self._epoch = -1, np.zeros(0, np.int64)
        self._first_steps = [0]
        self.steps_per_epoch = math.ceil(len(self.epoch(0)) / per_step)
        """Of the first epoch."""

    def epoch(self, number: int) -> Int64[np.ndarray, " E"]:
        """The comparisons of an epoch, in order; with repeats where a set is smaller than its share."""
        if number != self._number:
            draw = np.random.default_rng([self.seed, number])
            self._number = number
            self._epoch = draw.permutation(self.size) if self._pools is None else draw_epoch(self._pools, draw)
        return self._epoch

    def chosen(self, step: int) -> list[int]:
        """The comparisons of step number `step`, from 0."""
        if not self._varies:
            number, place = divmod(step, self.steps_per_epoch)
        else:
            while self._first_steps[-1] <= step:
                self._first_steps.append(self._first_steps[-1] + self._steps_in(len(self._first_steps) - 1))
            number = int(np.searchsorted(self._first_steps, step, side="right")) - 1
            place = step - self._first_steps[number]
        return self.epoch(number)[place * self.per_step : (place + 1) * self.per_step].tolist()

    def steps(self, epochs: float) -> int:
        """Steps of so many epochs; a fraction of one is rounded up to whole steps."""
        whole = math.floor(epochs)
        done = sum(map(self._steps_in, range(whole))) if self._varies else whole * self.steps_per_epoch
        rest = epochs - whole
        # rounded, so that a fifth of five steps is one, whatever the floating point makes of it
        return max(1, done + (math.ceil(round(rest * self._steps_in(whole), 6)) if rest else 0))

    def account(self) -> list[dict[str, Any]]:
        """What the first epoch takes of each pool; nothing where every epoch takes everything once."""
        if self._pools is None:
            return []
        epoch = self.epoch(0)
        return [pool.account(int(np.isin(epoch, pool.examples).sum())) for pool in self._pools]

    def _steps_in(self, number: int) -> int:
        return math.ceil(len(self.epoch(number)) / self.per_step) if self._varies else self.steps_per_epoch


def make_order(recipe: Recipe, *, comparisons: int, num_processes: int, pools: Sequence[Pool] | None = None) -> Order:
    """The order of a recipe over so many training comparisons.

    Raises:
        BadRecipe: a step larger than an epoch, fewer prompts a step than processes, or a pool that gives nothing.
    """
    per_step = recipe.prompts_per_update(num_processes)
    check_step(recipe, num_processes)
    for pool in pools or ():
        sides = [int((pool.sides == side).sum()) for side in (1, -1)]
        if pool.balanced and 0 in sides and len(pool.examples):
            raise BadRecipe(
                f"length_balance is true, but of {pool.name} the longer reply is preferred in {sides[0]} comparisons"
                f" and the shorter in {sides[1]}; leave it out, or that data set"
            )
    order = Order(comparisons, per_step=per_step, seed=recipe.seed, pools=pools)
    if len(order.epoch(0)) < per_step:
        raise BadRecipe(
            f"per_device_train_batch_size {recipe.per_device_train_batch_size} makes {per_step} prompts a step, but an"
            f" epoch has {len(order.epoch(0))} comparisons; lower it or gradient_accumulation_steps, or add data"
        )
    return order


def check_step(recipe: Recipe, num_processes: int) -> None:
    """Refuse a step that leaves a process without a prompt, or that no memory holds.

    Raises:
        BadRecipe: there is one.
    """
    per_step = recipe.prompts_per_update(num_processes)
    if per_step > limit("step_prompts"):
        raise BadRecipe(
            f"per_device_train_batch_size is {recipe.per_device_train_batch_size:,} and makes {per_step:,} prompts a"
            f" step, {past('step_prompts')}"
        )
    if per_step < num_processes:
        raise BadRecipe(
            f"num_devices is {recipe.num_devices} and makes {per_step} prompts a step, for {num_processes} processes;"
            " start fewer processes, or raise per_device_train_batch_size or gradient_accumulation_steps"
        )


def check_warmup(recipe: Recipe, steps: int) -> None:
    """Refuse a run that ends before its learning rate is at its peak.

    Raises:
        BadRecipe: there is one.
    """
    if recipe.warmup_steps >= steps:
        raise BadRecipe(
            f"warmup_steps is {recipe.warmup_steps}, but the run has {steps} steps: its rate would never peak;"
            " lower it, or train for longer (num_train_epochs, max_steps)"
        )


def count_steps(recipe: Recipe, order: Order) -> int:
    """Optimizer steps of the whole run."""
    return recipe.max_steps or order.steps(recipe.num_train_epochs)


def seed_step(seed: int, *, step: int, process: int) -> None:
    """Set torch's generators for one step, so that dropout does not depend on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1))
