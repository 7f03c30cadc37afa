"""Evaluation during training: how well scores agree with the preferences of each data set.

Surprising: every comparison counts the same, however many preferences it has; a model's equal scores count one half;
a human tie says nothing about accuracy but does enter the log loss.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefrank.errors import Diverged
from prefrank.training.events import SetMetrics
from prefrank.training.examples import Examples
from prefrank.training.losses import bradley_terry, count_correct
from prefrank.training.step import preferences_of

ScoreExamples = Callable[[Examples], Float[Tensor, " N"]]
"""Scores every row of a set, over all devices; the answer is on the CPU and the same on each."""
Evaluate = Callable[[ScoreExamples, Mapping[str, Examples]], Mapping[str, SetMetrics]]


def evaluate_sets(score: ScoreExamples, sets: Mapping[str, Examples]) -> dict[str, SetMetrics]:
    """The built-in evaluation: `measure` on every set.

    Raises:
        Diverged: a score that is not a finite number, naming its comparison.
    """
    metrics = {}
    for name, examples in sets.items():
        scores = score(examples)
        check_finite(scores, examples, f"the evaluation on {name}")
        metrics[name] = measure(scores, examples)
    return metrics


def check_finite(scores: Float[Tensor, " N"], examples: Examples, where: str) -> None:
    """Raise Diverged for scores that are not finite numbers, naming their comparisons."""
    bad = np.flatnonzero(~torch.isfinite(scores).numpy())
    names = dict.fromkeys(examples.names[c] for c in np.searchsorted(examples.groups, bad, side="right") - 1)
    if names:
        raise Diverged(f"{where} gives scores that are not finite for {name_some(list(names))}; lower learning_rate")


def name_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - 5} more comparisons" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def measure(scores: Float[Tensor, " N"], examples: Examples) -> SetMetrics:
    """Agreement of the scores of all rows with the preferences; the examples' weights (1 in evaluation) count."""
    preferences = preferences_of(examples, range(len(examples)))
    owner = np.repeat(np.arange(len(examples)), [len(group) for group in examples.preferences])
    pairs = (preferences.probability != 0.5).numpy()
    correct = count_correct(scores, preferences).numpy()[pairs]
    num_pairs = np.bincount(owner[pairs], minlength=len(examples))
    right = np.bincount(owner[pairs], correct, len(examples))
    shares = right[num_pairs > 0] / num_pairs[num_pairs > 0]
    accuracy = float(shares.mean()) if len(shares) else 0.5
    return SetMetrics(
        comparisons=len(examples),
        decided=len(shares),
        pairs=int(pairs.sum()),
        ties=int((~pairs).sum()),
        accuracy=accuracy,
        interval=wilson(accuracy, len(shares)),
        log_loss=float(bradley_terry(scores.double(), preferences)) / max(1, len(examples)),
    )


def pool(metrics: Iterable[SetMetrics]) -> SetMetrics:
    """The metrics of several sets as one, every comparison counting the same."""
    sets = list(metrics)
    comparisons, decided = sum(one.comparisons for one in sets), sum(one.decided for one in sets)
    accuracy = sum(one.accuracy * one.decided for one in sets) / decided if decided else 0.5
    return SetMetrics(
        comparisons=comparisons,
        decided=decided,
        pairs=sum(one.pairs for one in sets),
        ties=sum(one.ties for one in sets),
        accuracy=accuracy,
        interval=wilson(accuracy, decided),
        log_loss=sum(one.log_loss * one.comparisons for one in sets) / max(1, comparisons),
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of n (Wilson 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
