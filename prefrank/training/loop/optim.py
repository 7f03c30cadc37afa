"""Which parameters are trained, at which rate, on which schedule, and the average of the weights.

The learning rate is a pure function of the step, so a resumed run has no scheduler to restore.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from prefrank.errors import BadRecipe, short
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
    """The optimizer's groups: by peak learning rate; no weight decay for biases and norms (all of one axis)."""
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


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over the trained parameters, or its 8-bit form (Dettmers et al. 2022).

    Raises:
        BadRecipe: an optimizer whose package is not installed.
    """
    options = {"fused": True} if recipe.optimizer == "adamw" else {}  # one pass over the weights, on CPUs too
    return _optimizer_class(recipe)(
        parameter_groups(network, recipe),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        **options,
    )


@runtime_checkable
class Schedule(Protocol):
    """The factor on the peak rates in step number `step`, from 0, of `steps`."""

    def __call__(self, step: int, *, steps: int, recipe: Recipe) -> float: ...


def _optimizer_class(recipe: Recipe) -> Any:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise BadRecipe(
            f"optimizer is {recipe.optimizer}, which needs bitsandbytes ({error}); pip install bitsandbytes, or set"
            " optimizer: adamw"
        ) from error
    return AdamW8bit


def rate_factor(step: int, *, steps: int, recipe: Recipe) -> float:
    """The factor on the peak rates in step number `step` (from 0), as in the schedules of transformers.

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
    """Set the rate of every group for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class WeightAverage:
    """An average of the trained weights over the steps of a run: exponential, or the mean of its last snapshots.

    The exponential one is a plain mean of all until it has seen 1 / (1 - decay). A snapshot is taken every `every`
    steps and after step `final`; before the first one the average is the weights themselves. Kept outside the network:
    `swapped_in` puts it there for evaluating and saving. With neither decay nor last it does nothing.

    Args:
        parameters: of the network, by name; those that are trained count.
        decay: of the exponential average (Polyak & Juditsky 1992; Tarvainen & Valpola 2017); 0 for none.
        last: snapshots whose mean is taken (Izmailov et al. 2018, arXiv 1803.05407); 0 for none.
        every: steps between snapshots.
        final: steps of the whole run.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        decay: float = 0.0,
        *,
        last: int = 0,
        every: int = 1,
        final: int = 0,
    ) -> None:
        self.decay, self.last, self.every, self.final = decay, last, every, final
        self.updates = 0
        self._inside = False
        self._live = {name: p for name, p in parameters if p.requires_grad} if decay or last else {}
        self._average = self._copy()
        self._snapshots: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def update(self) -> None:
        """Update the average after one step."""
        self.updates += 1
        if self.last:
            self._update_last()
            return
        rate = max(1.0 - self.decay, 1.0 / self.updates)
        for name, parameter in self._live.items():
            self._average[name].lerp_(parameter, rate)

    def _update_last(self) -> None:
        if self.updates % self.every == 0 or self.updates == self.final:
            self._snapshots = [*self._snapshots, self._copy()][-self.last :]
            for name, average in self._average.items():
                average.copy_(self._snapshots[0][name])
                for snapshot in self._snapshots[1:]:
                    average.add_(snapshot[name])
                average.div_(len(self._snapshots))
        elif not self._snapshots:
            for name, parameter in self._live.items():
                self._average[name].copy_(parameter)

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._live.items()}

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
        """What resuming needs: the weights themselves too, since a checkpoint's own are the averaged ones."""
        live = {name: parameter.detach() for name, parameter in self._live.items()}
        inner, outer = (self._average, live) if self._inside else (live, self._average)
        return {"updates": self.updates, "live": inner, "average": outer, "snapshots": self._snapshots}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: what cannot be this average's.
        """
        if type(state["updates"]) is not int or state["updates"] < 0:
            raise ValueError(f"updates is {short(state['updates'])}")
        self.updates = state["updates"]
        for name, parameter in self._live.items():
            parameter.copy_(_like(parameter, state["live"][name]))
            self._average[name].copy_(_like(parameter, state["average"][name]))
        self._snapshots = [
            {name: _like(parameter, snapshot[name]).to(parameter.device) for name, parameter in self._live.items()}
            for snapshot in state["snapshots"]
        ]


def _like(parameter: Tensor, value: Any) -> Tensor:
    """The value, if it is a tensor of the parameter's shape; copying would stretch a smaller one."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or not value.is_floating_point():
        raise ValueError(f"an average of the shape {tuple(parameter.shape)} was saved as another")
    return value
