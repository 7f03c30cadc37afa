"""Which parameters are trained, at which rate, along which schedule, and the average of the weights.

Surprising: the learning rate is a pure function of the step, so a resumed run has no scheduler to restore.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prefrank.errors import BadRecipe
from prefrank.model import Network, parameters_by_depth
from prefrank.training.recipe import Recipe


def freeze(network: Network, recipe: Recipe) -> None:
    """Stop training the input embeddings and the bottom layers, as the recipe says.

    Raises:
        BadRecipe: more layers to freeze than there are.
    """
    depths = parameters_by_depth(network)
    num_layers = len(depths) - 2
    if recipe.freeze_layers > num_layers:
        raise BadRecipe(f"freeze_layers is {recipe.freeze_layers}; wanted at most the model's {num_layers} layers")
    count = 1 + recipe.freeze_layers if recipe.freeze_layers else int(recipe.freeze_embeddings)
    frozen = {name for names in depths[:count] for name in names}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's groups: by peak learning rate, and without weight decay for biases and norms (all of one axis)."""
    depths = parameters_by_depth(network)
    num_layers = len(depths) - 2
    rates = {name: _rate(depth, num_layers, recipe) for depth, names in enumerate(depths) for name in names}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates[name], decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _rate(depth: int, num_layers: int, recipe: Recipe) -> float:
    """The peak rate at a depth: 0 embeddings, 1 up to num_layers the layers, above them the head."""
    if depth > num_layers:
        return recipe.learning_rate if recipe.head_learning_rate is None else recipe.head_learning_rate
    return recipe.learning_rate * recipe.layer_decay ** (num_layers - depth)


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over the trained parameters."""
    return torch.optim.AdamW(
        parameter_groups(network, recipe),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
    )


def rate_factor(step: int, *, steps: int, recipe: Recipe) -> float:
    """What the peak rates are multiplied with in step number `step` (from 0), as in transformers' schedules.

    Linear from 0 over the warm-up, so that the very first step then has rate 0; after it cosine or linear to 0 at
    `steps`, or constant.
    """
    if step < recipe.warmup_steps:
        return step / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    match recipe.scheduler:
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        case "linear":
            return max(0.0, 1.0 - progress)
        case "constant":
            return 1.0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class WeightAverage:
    """An exponential moving average of the trained weights; a plain mean of all until it has seen 1 / (1 - decay).

    Kept outside the network: `swapped_in` puts it there for evaluating and saving. With decay 0 it does nothing.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._inside = False
        self._live = {name: p for name, p in parameters if p.requires_grad} if decay else {}
        self._average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one step."""
        self.updates += 1
        rate = max(1.0 - self.decay, 1.0 / self.updates)
        for name, parameter in self._live.items():
            self._average[name].lerp_(parameter, rate)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The network has the averaged weights inside this block, its own again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        self._inside = not self._inside
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(live)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: both sets of weights, since a checkpoint's own are the averaged ones."""
        live = {name: parameter.detach() for name, parameter in self._live.items()}
        if self._inside:
            return {"updates": self.updates, "live": self._average, "average": live}
        return {"updates": self.updates, "live": live, "average": self._average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        for name, parameter in self._live.items():
            parameter.copy_(state["live"][name])
            self._average[name].copy_(state["average"][name])
