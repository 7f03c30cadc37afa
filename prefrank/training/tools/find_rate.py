"""The learning-rate range test (Smith 2017, arXiv 1506.01186, section 3.3): one short run with a rising rate.

It calls `train` itself, in a temporary folder, so every other key of the recipe has its usual effect, and the recipe's
own output folder stays untouched. All peak rates rise together: head_learning_rate and layer_decay keep their ratios to
learning_rate.
"""

import math
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from prefrank.errors import BadInput, Diverged, Interrupted
from prefrank.training.loop.signals import stop_cleanly
from prefrank.training.loop.train import train
from prefrank.training.recipe import Recipe
from prefrank.training.records.events import Callback, Event, Started, StepDone, ignore

RULE = "a tenth of the rate with the least smoothed loss (range test of Smith 2017)"
_FEWEST = 20
_HALF_WINDOW = 4
"""Steps to each side over which losses are averaged; both sides, so that the curve does not lag behind the rate."""
_BLOWN_UP = 3.0
"""A running loss this many times its least one ends the test."""


@dataclass(frozen=True, slots=True)
class RateSearch:
    """The result of a range test.

    Args:
        rates: learning_rate of each step, rising.
        losses: mean loss of each step, in nats a comparison.
        smoothed: centered means of the losses.
        suggestion: for learning_rate; None where the loss never fell clearly.
        rule: how the suggestion was made, or why there is none.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    rule: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Enough(Exception):
    """Raised in the callback to stop the run once the test has what it needs."""


class _Watch:
    """Collects the steps of the run and ends it; passes events on with the test's steps in place of the run's."""

    def __init__(self, callback: Callback, steps: int) -> None:
        self.done: list[StepDone] = []
        self._callback, self._steps = callback, steps
        self._running = self._least = math.inf

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            event = replace(event, steps=self._steps)
        if not isinstance(event, StepDone):
            self._callback(event)
            return
        seconds = event.seconds_left / max(1, event.steps - event.step)
        event = replace(event, steps=self._steps, seconds_left=seconds * (self._steps - event.step))
        self._callback(event)
        self.done.append(event)
        self._running = event.loss if len(self.done) == 1 else 0.8 * self._running + 0.2 * event.loss
        self._least = min(self._least, self._running)
        blown_up = len(self.done) >= _FEWEST and self._running > _BLOWN_UP * self._least
        if blown_up or len(self.done) == self._steps:
            raise _Enough


@stop_cleanly()
def find_rate(
    recipe: Recipe, *, steps: int = 100, lowest: float = 1e-7, highest: float = 1.0, callback: Callback = ignore
) -> RateSearch:
    """Train for some steps with a rate that rises exponentially, and suggest a learning rate.

    Args:
        steps: at most, and no more than the recipe's max_steps, in all of which the rate rises; the test ends earlier
            where the loss blows up. The data come round again if they are fewer.
        lowest: rate of the first step.
        highest: rate of the last step.

    Raises:
        BadInput: fewer than 20 steps, rates that do not rise, or several processes.
        BadRecipe, BadData, BadModel, NotFound: as `train`.
        Diverged: within the first 20 steps already.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP.
    """
    check_alone("the learning-rate finder")
    if recipe.max_steps is not None and recipe.max_steps < _FEWEST:
        raise BadInput(
            f"max_steps is {recipe.max_steps}; the learning-rate finder wants at least {_FEWEST}: set it higher"
        )
    steps = min(steps, recipe.max_steps or steps)
    if steps < _FEWEST or not 0 < lowest < highest:
        raise BadInput(f"{steps} steps from {lowest:g} to {highest:g}; wanted at least {_FEWEST}, from low to high")

    def rising(step: int, *, steps: int, recipe: Recipe) -> float:
        return lowest * (highest / lowest) ** (step / last) / recipe.learning_rate

    last = steps - 1
    watch = _Watch(callback, steps)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(_probe(recipe, folder, steps), callback=watch, schedule=rising)
        except _Enough:
            pass
        except Diverged:
            if len(watch.done) < _FEWEST:
                raise
        except Interrupted as error:
            error.args = ("the learning-rate finder was stopped; nothing is kept of it",)
            raise
    return _search(watch.done)


def check_alone(what: str) -> None:
    """Raise BadInput in one of several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput(f"{what} runs in one process; start it without a launcher")


def _probe(recipe: Recipe, folder: str, steps: int) -> Recipe:
    never = 10**9
    changes: dict[str, Any] = {
        "output_dir": folder,
        "resume": False,
        "overwrite": False,
        "trackers": (),
        "eval_steps": never,
        "save_steps": never,
        "max_steps": steps,
        "warmup_steps": 0,
        "ema_decay": 0.0,
        "average_last": 0,
    }
    return recipe.model_copy(update=changes)


def _search(done: list[StepDone]) -> RateSearch:
    losses = np.array([step.loss for step in done])
    smoothed = _smooth(losses)
    rates = [step.learning_rate for step in done]
    least = int(smoothed.argmin())
    start = losses[: max(_FEWEST // 2, len(losses) // 10)]
    # a mean over 2 * _HALF_WINDOW + 1 noisy losses is off by about this much, and the least of many by more
    noise = float(start.std(ddof=1)) / math.sqrt(2 * _HALF_WINDOW + 1)
    if smoothed[least] > start.mean() - 3 * noise:
        return _result(rates, losses, smoothed, None, "none: the loss never fell clearly; take more steps or prompts")
    return _result(rates, losses, smoothed, rates[least] / 10, RULE)


def _result(
    rates: list[float],
    losses: Float64[np.ndarray, " S"],
    smoothed: Float64[np.ndarray, " S"],
    suggestion: float | None,
    rule: str,
) -> RateSearch:
    return RateSearch(tuple(rates), tuple(losses.tolist()), tuple(smoothed.tolist()), suggestion, rule)


def _smooth(losses: Float64[np.ndarray, " S"]) -> Float64[np.ndarray, " S"]:
    """Means over up to `_HALF_WINDOW` steps to both sides."""
    spans = [(max(0, n - _HALF_WINDOW), n + _HALF_WINDOW + 1) for n in range(len(losses))]
    return np.array([losses[first:end].mean() for first, end in spans])
