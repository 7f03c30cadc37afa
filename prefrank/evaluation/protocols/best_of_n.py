"""Best-of-n: what a scorer is worth when it picks one of n replies, judged by another measure, the gold.

From N replies to a prompt follows the exact expectation of the best of any n <= N of them, without drawing (Nakano et
al., arXiv 2112.09332, appendix I; Gao et al., arXiv 2210.10760). The rules:
- Equal scores pick by chance among them, so the order of replies in the file decides nothing.
- A failed score is never picked while another is there; among failures alone the least gold counts.
- Every point of a curve is of the same items, those with enough replies; else its shape would be the items', not the
  scorer's.
- Only differences of scores within a prompt mean anything, so what the score itself promises is its gain over the mean
  of the item's replies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from prefrank.data.candidates import FEW_REPLIES, Drop
from prefrank.data.fields import as_list, as_number, as_row, field, short, text, user
from prefrank.data.own import own
from prefrank.errors import BadData
from prefrank.evaluation.credits import ACCURACY, credits, mean_over
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.reading import published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Chart, Suite, SuiteData
from prefrank.evaluation.samples import Sample
from prefrank.io.rows import SUFFIXES, Record
from prefrank.stats.correlation import rank_correlations
from prefrank.stats.figures import Bounds, Figure, mean_figure, ratio, undefined
from prefrank.types import MAIN_HEAD, Preference, Prompt

RECOVERY, RANDOM, WORST = "Recovery", "Random", "Worst"
ALPHA, BETA, FIT, OPTIMUM = (f"Over-optimisation/{name}" for name in ("alpha", "beta", "R2", "sqrt KL at the top"))
FITS = 0.95
"""The least R2 with which a fitted curve is trusted to say where its top is."""


def kl(n: int) -> float:
    """Kullback-Leibler divergence in nats of the best of n from one sample (Gao et al.).

    With equal scores it is less (Beirami et al., arXiv 2401.01879).

    >>> round(kl(4), 3)
    0.636
    """
    return math.log(n) - (n - 1) / n


_WHOLE = 64
"""Replies up to which the weights are quotients of whole numbers, rounded once."""


@cache
def _order_weights(size: int) -> Float64[np.ndarray, "N N"]:
    """[n-1, i-1] probability that the i-th of N in ascending order is the best of n drawn: C(i-1, n-1) / C(N, n)."""
    counts = range(1, size + 1)
    return np.array([[math.comb(i - 1, n - 1) / math.comb(size, n) for i in counts] for n in counts])


def _curve(ascending: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """`_order_weights` @ ascending, each row of weights from the one before: C(i-1, n) / C(N, n+1) is the weight for n
    times (i - n) (n + 1) / ((N - n) n)."""
    size, expected = len(ascending), []
    place = np.arange(1, size + 1, dtype=np.float64)
    weights = np.full(size, 1 / size)
    for n in range(1, size + 1):
        expected.append(weights @ ascending)
        weights = weights * (np.maximum(place - n, 0.0) * ((n + 1) / (n * max(size - n, 1))))
    return np.array(expected)


def best_of_n(gold: Float64[np.ndarray, " N"], scores: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Expected gold of the best by score of n = 1, ..., N replies, drawn from these N without putting back.

    Args:
        gold: [N] of each reply.
        scores: [N] NaN is a failure.
    """
    failed = np.isnan(scores)
    kept = gold[~failed]
    _, block = np.unique(scores[~failed], return_inverse=True)  # ascending; equal scores are one block
    shared = np.bincount(block, kept) / np.bincount(block)
    lost = np.full(int(failed.sum()), gold.min(where=failed, initial=np.inf))
    ascending = np.concatenate([lost, shared[np.sort(block)]])
    curve = _order_weights(len(gold)) @ ascending if len(gold) <= _WHOLE else _curve(ascending)
    curve[0] = gold.mean()  # one reply is picked without a score
    return curve


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """C items with at least n replies that have gold, each with its expectations for the best of 1, ..., n.

    Args:
        places: [C] which items.
        prompts: [C] as in `Sample.pairs`.
        model: [C, n] gold of the best by score.
        oracle: [C, n] gold of the best by gold.
        worst: [C] the least gold in n.
        gain: [C, n] score of the best by score, less the item's mean score; NaN where one failed.
        kendall, spearman: [C] of scores and gold; -1 where a score failed, NaN where all gold is equal.
    """

    places: Int64[np.ndarray, " C"]
    prompts: Int64[np.ndarray, " C"]
    model: Float64[np.ndarray, "C n"]
    oracle: Float64[np.ndarray, "C n"]
    worst: Float64[np.ndarray, " C"]
    gain: Float64[np.ndarray, "C n"]
    kendall: Float64[np.ndarray, " C"]
    spearman: Float64[np.ndarray, " C"]


def curves_of(sample: Sample) -> Curves:
    """The curves of as many n as at least half of the items with gold have replies for.

    Raises:
        BadData: no item has gold for two replies.
    """
    judged = []
    for place, (facts, first) in enumerate(zip(sample.facts, sample.pairs.first[:-1], strict=True)):
        gold = np.array([math.nan if value is None else value for value in facts.gold], np.float64)
        scores = sample.values[first : first + len(gold)]
        if (known := ~np.isnan(gold)).sum() > 1:
            judged.append((place, gold[known], scores[known]))
    if not judged:
        raise BadData(
            f"none of the {len(sample.facts)} items has gold for two replies; best-of-n needs it on each reply"
        )
    n = sorted((len(gold) for _, gold, _ in judged), reverse=True)[(len(judged) - 1) // 2]
    judged = [entry for entry in judged if len(entry[1]) >= n]
    ranks = np.array([_ranks(gold, scores) for _, gold, scores in judged])
    places = np.array([place for place, _, _ in judged], np.int64)
    return Curves(
        places=places,
        prompts=sample.pairs.prompt[places],
        model=np.array([best_of_n(gold, scores)[:n] for _, gold, scores in judged]),
        oracle=np.array([best_of_n(gold, gold)[:n] for _, gold, _ in judged]),
        worst=np.array([best_of_n(gold, -gold)[n - 1] for _, gold, _ in judged]),
        gain=np.array([best_of_n(scores, scores)[:n] - scores.mean() for _, _, scores in judged]),
        kendall=ranks[:, 0],
        spearman=ranks[:, 1],
    )


def _ranks(gold: Float64[np.ndarray, " N"], scores: Float64[np.ndarray, " N"]) -> tuple[float, float]:
    if gold.max() == gold.min():
        return math.nan, math.nan
    return (-1.0, -1.0) if np.isnan(scores).any() else rank_correlations(gold, scores)


def sizes_shown(n: int) -> tuple[int, ...]:
    """1, 2, 4, ..., and n itself.

    >>> sizes_shown(11)
    (1, 2, 4, 8, 11)
    """
    return (*(2**k for k in range(n.bit_length()) if 2**k < n), n)


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def measure(sample: Sample, *, bounds: Bounds | None = None) -> dict[str, Figure]:
    """Recovery = (model - random) / (oracle - random) at the full n, the curves, order within prompts, and the fit.

    Args:
        bounds: the least and the greatest gold possible.
    """
    curves = curves_of(sample)
    over, shown = partial(mean_figure, prompts=curves.prompts), sizes_shown(curves.model.shape[1])
    random = curves.oracle[:, 0]
    at = {"Gold": (curves.model, bounds), "Oracle": (curves.oracle, bounds), "Score gain": (curves.gain, None)}
    return {
        RECOVERY: ratio(curves.model[:, -1] - random, curves.oracle[:, -1] - random, curves.prompts),
        RANDOM: over(random, bounds=bounds),
        WORST: over(curves.worst, bounds=bounds),
        **{
            f"{name}/{n}": over(values[:, n - 1], bounds=limits) for name, (values, limits) in at.items() for n in shown
        },
        ACCURACY: mean_over(sample, credits(sample, "half"), np.ones(len(sample.facts), bool)),
        "Kendall tau": _known(curves.kendall, curves.prompts),
        "Spearman": _known(curves.spearman, curves.prompts),
        "Equal scores": equal_scores(sample),
        **over_optimisation(curves),
    }


def _known(values: Float64[np.ndarray, " C"], prompts: Int64[np.ndarray, " C"]) -> Figure:
    kept = ~np.isnan(values)
    return mean_figure(values[kept], prompts[kept], bounds=(-1.0, 1.0))


def equal_scores(sample: Sample) -> Figure:
    """Share of an item's untied preferences whose two scores are equal, averaged over items."""
    pairs, size = sample.pairs, len(sample.facts)
    decided = np.bincount(pairs.comparison, pairs.decided, size)
    equal = np.bincount(pairs.comparison, pairs.decided & (sample.margin == 0), size)
    kept = decided > 0
    return mean_figure(equal[kept] / decided[kept], pairs.prompt[kept], bounds=(0.0, 1.0))


def over_optimisation(curves: Curves) -> dict[str, Figure]:
    """R(d) = d (alpha - beta d), d = sqrt(KL), fitted to the gain in gold over one random reply (Gao et al.).

    Least squares over n = 2, ..., each point weighing the inverse of its variance over items. The coefficients are
    linear in the curve, so their intervals are as good as the curve's, with these weights held fixed. R2 speaks of the
    points and has no interval. The top of the curve, d = alpha / (2 beta), is given only where R2 >= 0.95 and the top
    lies among the measured n: beyond them it would be a guess.
    """
    count, n = curves.model.shape
    figures = dict.fromkeys((ALPHA, BETA, FIT, OPTIMUM), undefined(curves.prompts))
    figures[FIT] = replace(undefined(curves.prompts[:1]), n=count)
    gains = curves.model[:, 1:] - curves.model[:, :1]
    variance = gains.var(0)
    if n < 4 or not ((variance > 1e-18) & np.isfinite(variance)).all():  # two coefficients want three points
        return figures
    d = np.sqrt([kl(k) for k in range(2, n + 1)])
    terms, weights, mean = np.stack([d, -d * d], 1), variance.min() / variance, gains.mean(0)
    solve = np.linalg.solve((terms.T * weights) @ terms, terms.T * weights)  # [2, points]
    alpha, beta = solve @ mean
    figures |= {
        name: mean_figure(gains @ row, curves.prompts, bounds=None)
        for name, row in zip((ALPHA, BETA), solve, strict=True)
    }
    fitted, middle = terms @ (alpha, beta), np.average(mean, weights=weights)
    whole = weights @ (mean - middle) ** 2
    if whole <= 1e-18:
        return figures
    r2 = 1 - (weights @ (mean - fitted) ** 2) / whole
    figures[FIT] = replace(mean_figure(np.array([r2]), curves.prompts[:1], bounds=None), n=count)
    if r2 >= FITS and alpha > 0 and beta > 0 and (top := alpha / (2 * beta)) <= d[-1]:
        change = solve[0] / (2 * beta) - solve[1] * top / beta
        figures[OPTIMUM] = mean_figure(top + (gains - mean) @ change, curves.prompts, bounds=None)
    return figures


def read_candidates(folder: Path) -> SuiteData:
    """`candidates.jsonl` as published: idx, instruction, candidates [{k, output, win_prob}], some without win_prob."""
    return read_items(records_of(published_files(folder, _CANDIDATES)), _published)


def _published(record: Record) -> Item | Drop:
    rows = [
        as_row(candidate, f"candidates[{i}]")
        for i, candidate in enumerate(as_list(field(record.row, "candidates"), "candidates"))
    ]
    judged = [candidate for candidate in rows if candidate.get("win_prob") is not None]
    gold = [as_number(candidate["win_prob"], "win_prob") for candidate in judged]
    wrong = next((value for value in gold if not 0 <= value <= 1), None)
    if wrong is not None:
        raise BadData(f"'win_prob' holds {wrong}; wanted a probability, 0 to 1")
    prompt, replies = user(text(record.row, "instruction")), [text(candidate, "output") for candidate in judged]
    id = str(int(as_number(field(record.row, "idx"), "idx")))
    return rated_item(prompt, replies, gold, subset="bon-alpacaeval", id=id)


def read_rated(path: Path) -> SuiteData:
    """Rows of our own format with `prompt`, `replies` and `ratings`: a file, or the data files of a folder.

    Replies may repeat, as samples of a model do. The ratings of the main head are the gold.
    """
    files = (path,) if path.is_file() else published_files(path, tuple(f"*{suffix}" for suffix in SUFFIXES))
    return read_items(records_of(files), _rated)


def _rated(record: Record) -> Item | Drop:
    candidate = own(record.row)
    if isinstance(candidate, Drop):
        return candidate
    gold = next((rating.values for rating in candidate.ratings if rating.head == MAIN_HEAD), None)
    if gold is None:
        raise BadData(f"the row has no 'ratings' of {MAIN_HEAD!r}; best-of-n wants prompt, replies and their ratings")
    kept = [(reply, value) for reply, value in zip(candidate.replies, gold, strict=True) if value is not None]
    id = candidate.id or str(record.line)
    replies, values = [reply for reply, _ in kept], [value for _, value in kept]
    return rated_item(candidate.prompt, replies, values, subset="best-of-n", id=id)


def rated_item(prompt: Prompt, replies: Sequence[str], gold: Sequence[float], *, subset: str, id: str) -> Item | Drop:
    """An item whose preferences follow from the gold, between replies that differ in both text and gold.

    One without any such pair still belongs to the curves, so it keeps one tied preference, which no accuracy counts.
    """
    if len(replies) != len(gold):
        raise BadData(f"{len(replies)} replies came with {short(gold)} as gold; wanted one value for each")
    if len(replies) < 2:
        return Drop(FEW_REPLIES)
    preferences = tuple(
        Preference(i, j) if gold[i] > gold[j] else Preference(j, i)
        for i, j in combinations(range(len(gold)), 2)
        if gold[i] != gold[j] and replies[i] != replies[j]
    )
    return Item(prompt, tuple(replies), preferences or (Preference(0, 1, 0.5),), subset, id, gold=tuple(gold))


ROWS = {"bon-alpacaeval": 805}
_CANDIDATES = ("candidates.jsonl", "candidates.jsonl.xz", "candidates.jsonl.gz")
_SHOWN = sizes_shown(11)


def _curve_chart(title: str, lines: dict[str, str]) -> Chart:
    figures = tuple(name.format(n=n) for name in lines.values() for n in _SHOWN)
    return Chart(
        title, tuple(lines), tuple(map(float, _SHOWN)), figures, kind="curves", x_label="n, replies to choose from"
    )


BEST_OF_N = Suite(
    name="bon-alpacaeval",
    title="Best-of-n on AlpacaEval",
    hub="",
    layout=_CANDIDATES,
    read=read_candidates,
    measure=partial(measure, bounds=(0.0, 1.0)),
    source="Gao et al., arXiv 2210.10760; candidates and judgements of allenai/reward-bench (arXiv 2403.13787)",
    ties="shared",
    charts=(
        _curve_chart(
            "Win probability of the best of n", {"model": "Gold/{n}", "oracle": "Oracle/{n}", "random": RANDOM}
        ),
        _curve_chart("Score of the best of n, above the mean score", {"model": "Score gain/{n}"}),
    ),
)

OWN_BEST_OF_N = Suite(
    name="best-of-n",
    title="Best-of-n on own rated replies",
    hub="",
    layout=tuple(f"*{suffix}" for suffix in SUFFIXES),
    read=read_rated,
    measure=measure,
    source="Gao et al., arXiv 2210.10760",
    ties="shared",
)
