"""What a run tells the trackers, and how fast it is."""

import time
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec

from accelerate import Accelerator

from prefrank.errors import BadRecipe
from prefrank.training.events import SetMetrics, StepDone
from prefrank.training.recipe import Recipe

_PACKAGES = {"tensorboard": "prefrank[train]", "wandb": "prefrank[wandb]", "trackio": "prefrank[trackio]"}


def check_trackers(recipe: Recipe) -> None:
    """Raise BadRecipe for a tracker that is not installed."""
    for name in recipe.trackers:
        if find_spec(name) is None:
            raise BadRecipe(
                f"trackers names {name}, which is missing; pip install '{_PACKAGES[name]}' or set trackers: none"
            )


class RunLog:
    """Sends means over `logging_steps` steps, and evaluations, to the recipe's trackers (none on other processes)."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self._accelerator, self._every, self._on = accelerator, recipe.logging_steps, bool(recipe.trackers)
        self._unsent: list[StepDone] = []
        if self._on:
            values = recipe.model_dump(mode="json")
            plain = {
                key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()
            }
            accelerator.init_trackers("prefrank", config=plain)

    def step(self, done: StepDone) -> None:
        self._unsent.append(done)
        if not self._on or done.step % self._every:
            return
        count = len(self._unsent)
        values = {
            "train/loss": sum(one.loss for one in self._unsent) / count,
            "train/accuracy": sum(one.accuracy for one in self._unsent) / count,
            "train/grad_norm": sum(one.grad_norm for one in self._unsent) / count,
            "train/learning_rate": done.learning_rate,
            "train/tokens_per_s": done.tokens_per_s,
        }
        self._accelerator.log(values, step=done.step)
        self._unsent.clear()

    def evaluation(self, step: int, metrics: Mapping[str, SetMetrics]) -> None:
        if self._on:
            values = {f"eval/{name}/log_loss": one.log_loss for name, one in metrics.items()}
            values |= {f"eval/{name}/accuracy": one.accuracy for name, one in metrics.items()}
            self._accelerator.log(values, step=step)


class Speed:
    """Tokens and seconds per step over the last 20 steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=21)
        self.pause()

    def pause(self) -> None:
        """Start measuring anew, as after an evaluation."""
        self._steps.clear()
        self._steps.append((time.perf_counter(), 0))

    def step(self, tokens: int) -> tuple[float, float]:
        """Count one step; returns (tokens per second, seconds per step)."""
        self._steps.append((time.perf_counter(), tokens))
        seconds = max(self._steps[-1][0] - self._steps[0][0], 1e-9)
        return sum(count for _, count in list(self._steps)[1:]) / seconds, seconds / (len(self._steps) - 1)
