"""Which comparisons make which step, and which random numbers a step draws: pure functions of seed and step."""

import math

import numpy as np
import torch

from prefrank.training.recipe import Recipe


class Order:
    """A new permutation for every epoch, cut into steps; an epoch's last step may be smaller.

    Lengths play no part, so that sampling stays independent of them; sorting happens inside a step.

    Args:
        size: comparisons of one epoch.
        per_step: comparisons of a step.
        seed: of the permutations.
    """

    def __init__(self, size: int, *, per_step: int, seed: int) -> None:
        self.size, self.per_step, self.seed = size, per_step, seed
        self.steps_per_epoch = math.ceil(size / per_step)
        self._epoch, self._permutation = -1, np.zeros(0, np.int64)

    def chosen(self, step: int) -> list[int]:
        """The comparisons of step number `step`, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return self._permutation[place * self.per_step : (place + 1) * self.per_step].tolist()


def make_order(recipe: Recipe, *, comparisons: int, num_processes: int) -> Order:
    """The order of a recipe over so many training comparisons."""
    return Order(comparisons, per_step=recipe.prompts_per_update(num_processes), seed=recipe.seed)


def count_steps(recipe: Recipe, order: Order) -> int:
    """Optimiser steps of the whole run; a fraction of an epoch is rounded up to whole steps."""
    return max(1, math.ceil(recipe.num_train_epochs * order.steps_per_epoch))


def seed_step(seed: int, *, step: int, process: int) -> None:
    """Set torch's generators for one step, so that dropout does not depend on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1))
