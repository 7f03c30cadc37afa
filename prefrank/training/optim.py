"""Which parameters are trained, at which rate, along which schedule, and the average of the weights.

Surprising: depth is read off the parameter names, which are transformers' own in every network here. The learning
rate is a pure function of the step, so a resumed run has no scheduler to restore.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prefrank.errors import BadRecipe
from prefrank.training.recipe import Recipe

_LAYER = re.compile(r"\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embeddings|embeddings_project|embed_tokens|embed_in|tok_embeddings|wte|wpe)\.")
_POOLER = re.compile(r"(?:^|\.)pooler\.")
HEAD = math.inf
"""The depth of pooler and score head."""


def depth_of(name: str, body: str) -> float | None:
    """How far up a parameter stands: 0 the input embeddings, i + 1 layer i, `HEAD`; None in the body but in no layer.

    Args:
        body: the first part of the names of the layers, such as `deberta` or `model`.
    """
    if name.partition(".")[0] != body or _POOLER.search(name):
        return HEAD
    layer = _LAYER.search(name)
    if layer:
        return int(layer[1]) + 1
    return 0 if _EMBEDDINGS.search(name) else None


def parameter_depths(network: nn.Module) -> dict[str, float]:
    """The depth of every parameter; what the whole body shares, such as a last norm, counts as its top layer."""
    names = [name for name, _ in network.named_parameters()]
    body = next((name.partition(".")[0] for name in names if _LAYER.search(name)), "")
    depths = {name: depth_of(name, body) for name in names}
    top = top_layer({name: depth for name, depth in depths.items() if depth is not None})
    return {name: top if depth is None else depth for name, depth in depths.items()}


def top_layer(depths: Mapping[str, float]) -> float:
    """The depth of the last layer, which is the number of layers."""
    return max((depth for depth in depths.values() if depth < HEAD), default=0)


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Stop training the input embeddings and the bottom layers, as the recipe says.

    Raises:
        BadRecipe: more layers to freeze than there are.
    """
    depths = parameter_depths(network)
    top = top_layer(depths)
    if recipe.freeze_layers > top:
        raise BadRecipe(f"freeze_layers is {recipe.freeze_layers} but the model has {top:.0f} layers")
    frozen = recipe.freeze_layers if recipe.freeze_layers or recipe.freeze_embeddings else -1
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(depths[name] > frozen)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """AdamW's groups, the body's top rate first: by learning rate, and without weight decay for biases and norms."""
    depths = parameter_depths(network)
    top = top_layer(depths)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((_rate(depths[name], top, recipe), decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _rate(depth: float, top: float, recipe: Recipe) -> float:
    if depth == HEAD:
        return recipe.learning_rate if recipe.head_learning_rate is None else recipe.head_learning_rate
    return recipe.learning_rate * recipe.layer_decay ** (top - depth)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
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
    return 1.0


class WeightAverage:
    """An exponential moving average of the trained weights; a plain mean of all until it has seen 1 / (1 - decay).

    Kept outside the network: `swapped_in` puts it there for evaluating and saving. With decay 0 it does nothing.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {name: p for name, p in network.named_parameters() if p.requires_grad} if decay else {}
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
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(live)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: both sets of weights, since a checkpoint's own are the averaged ones."""
        live = {name: parameter.detach() for name, parameter in self._live.items()}
        return {"updates": self.updates, "live": live, "average": self._average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        for name, parameter in self._live.items():
            parameter.copy_(state["live"][name])
            self._average[name].copy_(state["average"][name])
