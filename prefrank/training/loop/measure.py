"""Evaluation during training: how well scores agree with the preferences of each data set.

Every comparison counts the same, however many preferences it has. Equal scores count one half. Human ties do not enter
the accuracy but do enter the log loss. The log loss is that of the likelihood behind the training loss, so it compares
runs that share a loss, not runs of different losses.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped

from prefrank.errors import Diverged
from prefrank.stats.intervals import Z_95, Interval, mean_interval, wilson_of_share
from prefrank.training.feed.examples import Examples
from prefrank.training.losses.likelihoods import BradleyTerry
from prefrank.training.losses.preference_loss import PreferenceLoss, Scores, by_head, count_correct
from prefrank.training.records.events import SetMetrics
from prefrank.types import RankedPairs

ScoreExamples = Callable[[Examples], Scores]
"""Scores every row of a set, over all devices; the answer is on the CPU and the same on each."""
Evaluate = Callable[[ScoreExamples, Mapping[str, Examples]], Mapping[str, SetMetrics]]


def evaluate_sets(
    score: ScoreExamples, sets: Mapping[str, Examples], *, loss: PreferenceLoss | None = None
) -> dict[str, SetMetrics]:
    """The built-in evaluation: `measure` on every set; of several heads on each by itself, as `SET/HEAD`.

    Args:
        loss: whose likelihood the log loss is; Bradley-Terry's by default.

    Raises:
        Diverged: a score that is not a finite number, naming its comparison.
    """
    metrics = {}
    for name, examples in sets.items():
        scores = score(examples)
        check_finite(scores, examples, f"the evaluation on {name}")
        for head, title in enumerate(examples.heads):
            key = name if len(examples.heads) == 1 else f"{name}/{title}"
            set_metrics = measure(scores, examples, loss=loss, head=head)
            if set_metrics.comparisons:
                metrics[key] = set_metrics
    return metrics


def check_finite(scores: Scores, examples: Examples, where: str) -> None:
    """Raise Diverged for scores that are not finite numbers, naming their comparisons."""
    bad = np.flatnonzero(~torch.isfinite(by_head(scores)).all(1).numpy())
    names = dict.fromkeys(examples.names[c] for c in np.searchsorted(examples.groups, bad, side="right") - 1)
    if names:
        raise Diverged(f"{where} gives scores that are not finite for {name_some(list(names))}; lower learning_rate")


def name_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - 5} more comparisons" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def measure(scores: Scores, examples: Examples, *, loss: PreferenceLoss | None = None, head: int = 0) -> SetMetrics:
    """Agreement of one head's scores of all rows with its preferences, every comparison counting the same.

    Args:
        loss: whose likelihood the log loss is; Bradley-Terry's by default.
        head: number of the head; comparisons without a preference of it are not counted.
    """
    preferences = examples.labels(range(len(examples)))
    owner = np.repeat(np.arange(len(examples)), [len(group) for group in examples.preferences])
    mine = (preferences.head == head).numpy()
    decided = mine & (preferences.probability != 0.5).numpy()
    correct = count_correct(scores, preferences).numpy()
    shares = _mean_by_owner(correct, owner, decided)
    nll = (loss or PreferenceLoss(BradleyTerry())).log_loss(scores.double(), preferences).detach().numpy()
    weight = np.concatenate(
        [
            np.ones(len(group)) if isinstance(group, RankedPairs) else np.array([p.weight for p in group], float)
            for group in examples.preferences
        ]
        or [np.zeros(0)]
    )
    losses = _mean_by_owner(nll, owner, mine, weight)
    accuracy = float(shares.mean()) if len(shares) else 0.5
    return SetMetrics(
        comparisons=len(losses),
        decided=len(shares),
        pairs=int(decided.sum()),
        ties=int((mine & ~decided).sum()),
        accuracy=accuracy,
        interval=_wilson(accuracy, len(shares)),
        log_loss=float(losses.mean()) if len(losses) else 0.0,
        log_loss_interval=mean_interval(losses, Z_95),
    )


def _mean_by_owner(
    values: Shaped[np.ndarray, " P"],
    owner: Int64[np.ndarray, " P"],
    mine: Bool[np.ndarray, " P"],
    weight: Float[np.ndarray, " P"] | None = None,
) -> Float[np.ndarray, " C"]:
    """The weighted mean of each comparison's values that are `mine`, of comparisons that have any."""
    weight = np.ones(len(values)) if weight is None else weight
    total = np.bincount(owner[mine], weight[mine])
    return np.bincount(owner[mine], (weight * values)[mine])[total > 0] / total[total > 0]


def pool(metrics: Iterable[SetMetrics]) -> SetMetrics:
    """The metrics of several sets as one, every comparison counting the same."""
    sets = list(metrics)
    comparisons, decided = (
        sum(set_metrics.comparisons for set_metrics in sets),
        sum(set_metrics.decided for set_metrics in sets),
    )
    accuracy = sum(set_metrics.accuracy * set_metrics.decided for set_metrics in sets) / decided if decided else 0.5
    log_loss = sum(set_metrics.log_loss * set_metrics.comparisons for set_metrics in sets) / max(1, comparisons)
    return SetMetrics(
        comparisons=comparisons,
        decided=decided,
        pairs=sum(set_metrics.pairs for set_metrics in sets),
        ties=sum(set_metrics.ties for set_metrics in sets),
        accuracy=accuracy,
        interval=_wilson(accuracy, decided),
        log_loss=log_loss,
        log_loss_interval=_pooled_normal(sets, log_loss, comparisons),
    )


def _pooled_normal(sets: Sequence[SetMetrics], mean: float, comparisons: int) -> Interval | None:
    """The interval of the mean over all sets, from the sets' own; None where one of them has none."""
    intervals = [set_metrics.log_loss_interval for set_metrics in sets]
    if not sets or None in intervals:
        return None
    known = zip(sets, filter(None, intervals), strict=True)
    halves = [(high - low) / 2 * set_metrics.comparisons for set_metrics, (low, high) in known]
    half = math.hypot(*halves) / comparisons
    return mean - half, mean + half


def _wilson(share: float, n: int) -> Interval:
    return wilson_of_share(share, n, Z_95) if n else (0.0, 1.0)
