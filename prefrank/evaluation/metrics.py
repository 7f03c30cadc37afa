"""How well scores agree with preferences: pure functions of a sample of scored items.

The rules:
- A comparison's pairs are averaged first (by their weights), then comparisons: a ranking of nine replies (36 pairs)
  counts as much as one pair. `accuracy_by_pair` lets every pair count the same.
- Equal scores are half a win, and lost in `accuracy_ties_lost`. A score that is NaN or infinite is a failure: its pairs
  are lost, never won, its comparison gets the worst tau, and log loss and margin have no value at all, as they would be
  infinite.
- Tied preferences (probability 0.5) have no right answer: they count in the log loss, not in accuracies.
- Soft labels are judged against their majority side. Margins in the labels are for training and ignored here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.evaluation.samples import Pairs, Sample, wins
from prefrank.stats.arrays import distinct, in_blocks
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Free, Share, Signed
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Bounds, Figure, Unit, mean_figure


@dataclass(frozen=True, slots=True)
class Counts:
    """What an evaluation saw.

    Args:
        comparisons: prompts with their replies.
        prompts: distinct conversation starts, as `split_of` tells them apart.
        replies: scores.
        pairs: preferences, ties included.
        ties: preferences of probability 0.5, left out of accuracies.
        score_ties: untied preferences whose two scores are equal, half a win each.
        failures: scores that are NaN or infinite.
        failed_pairs: untied preferences with such a score, lost.
        cut_prompts: rows whose prompt was cut to fit the model.
        cut_replies: rows whose reply was cut.
    """

    comparisons: int
    prompts: int
    replies: int
    pairs: int
    ties: int
    score_ties: int
    failures: int
    failed_pairs: int
    cut_prompts: int
    cut_replies: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """One data set's results; each an `Estimate` with n and interval.

    Args:
        accuracy: share of pairs in the right order, averaged inside each comparison, then over comparisons.
        accuracy_ties_lost: the same with equal scores lost, as RewardBench counts.
        accuracy_by_pair: `accuracy` with every pair counting once.
        log_loss: mean of -log P(label), P = sigmoid(difference of scores) (Bradley-Terry), ties and soft labels
            included; ln 2 = 0.693 is what equal scores get.
        margin: mean score difference in favor of the preferred reply.
        best_worst: share of comparisons whose most preferred reply outscores their least preferred one, where people
            compared the two directly. Easier than `accuracy` when K > 2.
        best_worst_published: the same with equal scores as wins, as Open Assistant's trainer counted.
        kendall_tau: Kendall's tau-b (1945) per comparison of K > 2 replies, over the pairs people compared.
        length_accuracy: what "the longer reply wins" (in characters) gets on the same pairs.
        counts: what was seen.
    """

    accuracy: Share
    accuracy_ties_lost: Share
    accuracy_by_pair: Share
    log_loss: Free
    margin: Free
    best_worst: Share
    best_worst_published: Share
    kendall_tau: Signed
    length_accuracy: Share
    counts: Counts


def log_losses(margin: Float64[np.ndarray, " P"], pairs: Pairs) -> Float64[np.ndarray, " P"]:
    """Cross-entropy of P(ahead wins) = sigmoid(margin) against the labels (Bradley and Terry 1952), in nats."""
    losses = np.empty(len(margin))
    with np.errstate(invalid="ignore"):  # a failed score's loss stays NaN
        for part in in_blocks(len(margin)):
            own, label, lost = margin[part], pairs.probability[part], losses[part]
            np.multiply(label, np.logaddexp(0, -own), out=lost)
            unsure = label < 1
            lost[unsure] += (1 - label[unsure]) * np.logaddexp(0, own[unsure])
    return losses


def kendall_taus(margin: Float64[np.ndarray, " P"], pairs: Pairs) -> Float64[np.ndarray, " C"]:
    """tau-b = (agreements - disagreements) / sqrt(untied preferences * untied scores), per comparison.

    For a complete ranking this is the usual tau-b; otherwise only pairs that people compared count. Equal scores
    throughout order nothing: 0. A failed score: -1. NaN where there is no tau: K = 2, or every preference tied.
    """
    size = len(pairs.prompt)
    agreed = np.bincount(pairs.comparison, np.where(pairs.decided, np.sign(np.nan_to_num(margin)), 0), size)
    decided = np.bincount(pairs.comparison, pairs.decided, size)
    apart = np.bincount(pairs.comparison, np.nan_to_num(margin) != 0, size)
    tau = agreed / np.sqrt(np.maximum(decided * apart, 1))
    tau = np.where(np.bincount(pairs.comparison, np.isnan(margin), size) > 0, -1.0, tau)
    return np.where((np.diff(pairs.first) > 2) & (decided > 0), tau, np.nan)


def best_and_worst(pairs: Pairs) -> Bool[np.ndarray, " P"]:
    """Which pairs set their comparison's most preferred reply against its least preferred one: at most one each.

    A reply's standing is its weighted wins minus losses; of equals the first is best and the last is worst. Replies
    that people never compared are not compared here either.
    """
    gain = pairs.weight * (2 * pairs.probability - 1)
    rows = int(pairs.first[-1])
    standing = np.bincount(pairs.ahead, gain, rows) - np.bincount(pairs.behind, gain, rows)
    parts = [standing[start:end] for start, end in zip(pairs.first[:-1], pairs.first[1:], strict=True)]
    best = pairs.first[:-1] + np.array([part.argmax() for part in parts], np.int64)
    worst = pairs.first[1:] - 1 - np.array([part[::-1].argmin() for part in parts], np.int64)
    ends = pairs.decided & (pairs.ahead == best[pairs.comparison]) & (pairs.behind == worst[pairs.comparison])
    only = np.zeros_like(ends)  # several votes on that pair: the first stands for them
    only[np.flatnonzero(ends)[np.unique(pairs.comparison[ends], return_index=True)[1]]] = True
    return only


def mean(
    result: Float64[np.ndarray, " P"],
    chosen: Bool[np.ndarray, " P"],
    pairs: Pairs,
    *,
    unit: Unit = "pairs",
    bounds: Bounds | None = (0.0, 1.0),
    by_pair: bool = False,
) -> Figure:
    """Mean of the chosen pairs' results: inside each comparison by weight, then over comparisons (or pairs)."""
    size = len(pairs.prompt)
    mass, total = np.zeros(size), np.zeros(size)
    for part in in_blocks(len(result)):
        weight = np.where(chosen[part], pairs.weight[part], 0.0)
        mass += np.bincount(pairs.comparison[part], weight, size)
        total += np.bincount(pairs.comparison[part], weight * np.where(chosen[part], result[part], 0.0), size)
    kept = mass > 0
    means = total[kept] / mass[kept]
    counts = np.bincount(pairs.comparison[chosen], minlength=size)[kept].astype(np.float64) if by_pair else None
    return mean_figure(means, pairs.prompt[kept], counts, n=int(chosen.sum()), unit=unit, bounds=bounds)


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def metric_figures(sample: Sample) -> dict[str, Figure]:
    """Every estimate of `Metrics` before it has an interval."""
    pairs, margin = sample.pairs, sample.margin
    decided, ends, tau = pairs.decided, best_and_worst(pairs), kendall_taus(margin, pairs)
    kept = ~np.isnan(tau)
    return {
        "accuracy": accuracy_figure(sample),
        "accuracy_ties_lost": mean(np.where(margin > 0, 1.0, 0.0), decided, pairs),
        "accuracy_by_pair": mean(sample.wins, decided, pairs, by_pair=True),
        "log_loss": mean(log_losses(margin, pairs), np.ones_like(decided), pairs, bounds=None),
        "margin": mean(margin, decided, pairs, bounds=None),
        "best_worst": mean(sample.wins, ends, pairs, unit="comparisons"),
        "best_worst_published": mean(np.where(margin >= 0, 1.0, 0.0), ends, pairs, unit="comparisons"),
        "kendall_tau": mean_figure(
            tau[kept], pairs.prompt[kept], n=int(kept.sum()), unit="comparisons", bounds=(-1.0, 1.0)
        ),
        "length_accuracy": mean(wins(sample.longer), decided, pairs),
    }


def accuracy_figure(sample: Sample) -> Figure:
    """`accuracy` of `Metrics`, before it has an interval."""
    return mean(sample.wins, sample.pairs.decided, sample.pairs)


def measure(
    sample: Sample, bootstrap: Bootstrap | None = None, *, strata: Int64[np.ndarray, " G"] | None = None
) -> Metrics:
    """All metrics of a sample of C items.

    Args:
        strata: [G] of each prompt, as in `estimate_all`; None: prompts are drawn from all.
    """
    estimates = estimate_all(metric_figures(sample), bootstrap or Bootstrap(), strata=strata)
    return Metrics(**estimates, counts=_counts(sample))


def measure_subsets(sample: Sample, bootstrap: Bootstrap | None = None) -> tuple[Metrics, dict[str, Metrics]]:
    """All metrics overall, with prompts resampled inside their subset, and of each subset by its own prompts.

    Subsets are in order of first appearance. One subset alone is the whole.
    """
    places: dict[str, list[int]] = {}
    for place, facts in enumerate(sample.facts):
        places.setdefault(facts.subset, []).append(place)
    overall = measure(sample, bootstrap, strata=sample.prompt_strata)
    if len(places) == 1:
        return overall, dict.fromkeys(places, overall)
    return overall, {name: measure(sample.take(chosen), bootstrap) for name, chosen in places.items()}


def _counts(sample: Sample) -> Counts:
    margin, pairs = sample.margin, sample.pairs
    scores = [score for each in sample.scores for score in each]
    return Counts(
        comparisons=len(pairs.prompt),
        prompts=len(distinct(pairs.prompt)),
        replies=len(scores),
        pairs=len(margin),
        ties=int((~pairs.decided).sum()),
        score_ties=int((pairs.decided & (margin == 0)).sum()),
        failures=int(np.isnan(sample.values).sum()),
        failed_pairs=int((pairs.decided & np.isnan(margin)).sum()),
        cut_prompts=sum(score.cut_prompt > 0 for score in scores),
        cut_replies=sum(score.cut_reply > 0 for score in scores),
    )
