"""Length and style: does a model follow them, and what is it worth where they are equal?

Differences are taken preferred minus other, so that every term changes sign with the sides and none needs randomising.

Surprising, and on purpose:
- Intervals of correlations and coefficients come from no resampling. Each pair's first-order influence on the figure is
  known, and the sum over prompts of their squared sums is its variance: the infinitesimal jackknife (Efron 1982,
  chapter 6), for a regression the cluster-robust sandwich. It counts that a pair's coming or going moves the ranks.
- Every pair weighs as in `accuracy`: its share of its item. For the likelihood ratio the weights are brought down
  until they add up to the number of prompts that count (Kish 1965), or ten pairs of a prompt would pass for ten.
- A failed score orders nothing: its pair is lost in accuracies, has a lead of 0 in the regression, and is left out of
  correlations.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.evaluation.items import Sample
from prefrank.evaluation.slices import figure_of, in_groups, share_of
from prefrank.stats.estimates import Bootstrap, Estimate, Figure, distinct, estimate_all, one_mean

EDGES = (-1.0, -0.5, -0.25, -0.05, 0.05, 0.25, 0.5, 1.0)
"""Of the buckets of (length preferred - length other) / (their sum); the last holds its upper edge too."""

MIN_PROMPTS = 20
"""Fewer prompts get no regression, and their correlations no interval."""

MIN_DIFFERING = 10
"""A term of the regression differs in at least as many prompts."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Accuracy where the relative length difference is from `low` to `high`."""

    low: float
    high: float
    accuracy: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"from": self.low, "to": self.high, "accuracy": self.accuracy.to_json()}


@dataclass(frozen=True, slots=True)
class Term:
    """A coefficient of the regression, for one standard unit of its term, and its cluster-robust interval."""

    name: str
    coefficient: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Regression:
    """Logistic regression of which reply is preferred, without intercept, on lead and differences of style.

    Args:
        terms: lead, tanh of the length difference, headers, list items, bold; each difference divided by its root mean
            square. A term that differs in fewer than 10 prompts, or that others add up to, is left out.
        statistic: likelihood ratio of the lead's term, 2 (log L - log L without it).
        p: of that under chi-squared with one degree of freedom.
        at_equal_style: P(people prefer the reply with the higher score) where all style terms are 0: the regression's,
            for the leads less what length and style explain of them. A bonus for length in the scores changes nothing.
        n: pairs.
    """

    terms: tuple[Term, ...]
    statistic: float
    p: float
    at_equal_style: Estimate
    n: int

    def to_json(self) -> dict[str, Any]:
        return {
            "terms": [asdict(term) for term in self.terms],
            "gain": {"statistic": self.statistic, "p": self.p},
            "at_equal_style": self.at_equal_style.to_json(),
            "n": self.n,
        }


@dataclass(frozen=True, slots=True)
class Style:
    """What length and style have to do with the scores.

    Args:
        pearson, spearman: of lead and length difference, over decided pairs.
        within_prompt: mean over items of Spearman's correlation of score and length; of two replies it is 1 or -1, and
            0 where all scores are equal.
        longer, shorter: accuracy where the preferred reply is the longer, the shorter one.
        balanced: their mean; the longer reply, or the shorter one, always winning gets 1/2.
        buckets: accuracy by relative length difference.
        regression: None where there is none.
        note: why not.
    """

    pearson: Estimate
    spearman: Estimate
    within_prompt: Estimate
    longer: Estimate
    shorter: Estimate
    balanced: Estimate
    buckets: tuple[Bucket, ...]
    regression: Regression | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        names = ("pearson", "spearman", "within_prompt", "longer", "shorter", "balanced")
        estimates = (self.pearson, self.spearman, self.within_prompt, self.longer, self.shorter, self.balanced)
        return {name: one.to_json() for name, one in zip(names, estimates, strict=True)} | {
            "buckets": [bucket.to_json() for bucket in self.buckets],
            "regression": self.regression and self.regression.to_json(),
            "note": self.note,
        }


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def style(sample: Sample, bootstrap: Bootstrap | None = None) -> Style:
    """All of it."""
    how, pairs = bootstrap or Bootstrap(), sample.pairs
    weight, right, level = pairs.share, sample.wins, how.confidence
    longer, shorter = (
        figure_of(right, np.where(chosen, weight, 0.0), pairs) for chosen in (sample.longer > 0, sample.longer < 0)
    )
    figures = {"longer": longer, "shorter": shorter, "balanced": _half_each(longer, shorter)}
    found = estimate_all(figures | {"within_prompt": _within_prompt(sample)}, how)
    both = sample.lengths[pairs.ahead] + sample.lengths[pairs.behind]
    bucket = np.digitize(sample.longer / np.maximum(both, 1.0), EDGES[1:-1])
    those, none = dict(in_groups(bucket, weight)), np.zeros(0, np.int64)
    parts = [
        share_of(right, weight, pairs, confidence=level, kept=those.get(place, none)) for place in range(len(EDGES) - 1)
    ]
    fitted = regress(sample, confidence=level)
    return Style(
        pearson=correlation(sample, "pearson", confidence=level),
        spearman=correlation(sample, "spearman", confidence=level),
        within_prompt=found["within_prompt"],
        longer=found["longer"],
        shorter=found["shorter"],
        balanced=found["balanced"],
        buckets=tuple(map(Bucket, EDGES[:-1], EDGES[1:], parts)),
        regression=fitted if isinstance(fitted, Regression) else None,
        note=fitted if isinstance(fitted, str) else None,
    )


def correlation(sample: Sample, kind: Literal["pearson", "spearman"], *, confidence: float = 0.95) -> Estimate:
    """Of lead and length difference over decided pairs; its interval is symmetric in atanh (Fisher 1921).

    No value where either does not vary.
    """
    pairs = sample.pairs
    kept = np.flatnonzero(pairs.decided & np.isfinite(sample.lead))
    weight, prompt = pairs.share[kept], pairs.prompts[kept]
    lead, longer = sample.lead[kept], sample.longer[kept]
    prompts = len(distinct(prompt))
    if not len(kept) or not lead.max() > lead.min() or not longer.max() > longer.min():
        return Estimate(None, None, None, len(kept), "pairs", prompts)
    share, most = weight / weight.sum(), float(np.abs(lead).max())
    if kind == "pearson":
        (across, first, second), change = _moments(lead / most, longer, share)
    else:
        i, j = _dense(_signed_places(sample, most)[kept]), _dense(sample.by_longer.place[kept])
        (across, first, second), change = _rank_moments(i, j, share)
    if not first * second > 0:  # they vary by less than a product of numbers can tell
        return Estimate(None, None, None, len(kept), "pairs", prompts)
    value = float(np.clip(across / math.sqrt(first * second), -1.0, 1.0))
    if prompts < MIN_PROMPTS or abs(value) > 1 - 1e-12:
        return Estimate(value, None, None, len(kept), "pairs", prompts)
    changes = change()
    influence = changes[0] / math.sqrt(first * second) - value / 2 * (changes[1] / first + changes[2] / second)
    error = _error(share * influence, prompt) / (1 - value**2)
    return Estimate(value, *_between(math.tanh, math.atanh(value), error, confidence), len(kept), "pairs", prompts)


def _signed_places(sample: Sample, most: float) -> Int64[np.ndarray, " P"]:
    """A number for each lead over `most`, in their order, equal for equal ones: without another sort."""
    scaled = sample.sizes.values / most  # rounding may make two of them equal
    place = np.cumsum(np.diff(scaled, prepend=0.0) > 0)[sample.sizes.place]
    return np.where(sample.lead < 0, -place, place) + int(place.max(initial=0))


def _dense(place: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The same order as 0, 1, ..., none left out."""
    return (np.cumsum(np.bincount(place) > 0) - 1)[place]


Moments = tuple[list[float], Callable[[], list[np.ndarray]]]
"""Covariance and the two variances, and how each pair changes each of them, found where it is asked for."""


def _moments(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], share: Float64[np.ndarray, " n"]) -> Moments:
    x, y = x - share @ x, y - share @ y
    both = ((x, y), (x, x), (y, y))
    values = [float(share @ (a * b)) for a, b in both]
    return values, lambda: [a * b - value for (a, b), value in zip(both, values, strict=True)]


def _rank_moments(i: Int64[np.ndarray, " n"], j: Int64[np.ndarray, " n"], share: Float64[np.ndarray, " n"]) -> Moments:
    """Of mid-ranks u(x) = P(X < x) + P(X = x) / 2, whose mean is 1/2 always, given numbers in the order of x and of y.

    The mean of u v is a V-statistic of three pairs: one's place among the products, and what it adds to the ranks of
    all that are above it in x and in y.
    """
    u, v = _ranks(i, share), _ranks(j, share)

    def change(a: np.ndarray, b: np.ndarray, over_a: np.ndarray, over_b: np.ndarray) -> np.ndarray:
        return a * b + _above(over_a, share * b) + _above(over_b, share * a) - 3 * float(share @ (a * b))

    values = [float(share @ (a * b)) - 0.25 for a, b in ((u, v), (u, u), (v, v))]
    return values, lambda: [change(u, v, i, j), change(u, u, i, i), change(v, v, j, j)]


def _ranks(place: Int64[np.ndarray, " n"], share: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Mid-ranks of values, given the place of each among the distinct ones."""
    mass = np.bincount(place, share)
    return (np.cumsum(mass) - mass / 2)[place]


def _above(place: Int64[np.ndarray, " n"], load: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The load of greater values, and half of that of equal ones, given their places."""
    mass = np.bincount(place, load)
    return (mass.sum() - np.cumsum(mass) + mass / 2)[place]


def _error(influence: Float64[np.ndarray, " n"], prompt: Int64[np.ndarray, " n"]) -> float:
    """The standard error of a figure, from what each pair adds to it; prompts are independent."""
    sums, count = np.bincount(prompt, influence), len(distinct(prompt))
    return math.sqrt(count / (count - 1) * float(sums @ sums))


def _between(back: Callable[[float], float], centre: float, error: float, confidence: float) -> tuple[float, float]:
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    return back(centre - half), back(centre + half)


def _half_each(longer: Figure, shorter: Figure) -> Figure:
    parts = tuple(replace(part, coefficient=0.5) for part in (*longer.parts, *shorter.parts))
    return Figure(parts if len(parts) == 2 else (), longer.n + shorter.n, "pairs")


def _within_prompt(sample: Sample) -> Figure:
    found, prompts = item_correlations(sample), sample.pairs.prompt
    kept = np.flatnonzero(~np.isnan(found))
    return one_mean(found[kept], prompts[kept], n=len(kept), unit="items", bounds=(-1.0, 1.0))


def item_correlations(sample: Sample) -> Float64[np.ndarray, " C"]:
    """Spearman's, of score and length in each item; 0 for equal scores, NaN for equal lengths or a failed score."""
    item = np.repeat(np.arange(len(sample.facts)), np.diff(sample.pairs.first))
    scores, lengths = (_centred_ranks(each, item) for each in (sample.values, sample.lengths))
    across, first, second = (
        np.bincount(item, one * other) for one, other in ((scores, lengths), (scores, scores), (lengths, lengths))
    )
    found = across / np.sqrt(np.where(first * second > 0, first * second, 1.0))
    failed = np.bincount(item, np.isnan(sample.values)) > 0
    return np.where((second > 0) & ~failed, found, np.nan)


def _centred_ranks(values: Float64[np.ndarray, " N"], item: Int64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Mid-ranks inside each item, less their mean."""
    order = np.lexsort((values, item))
    ordered = values[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]  # a difference may be too large
    new |= np.diff(item[order], prepend=-1) != 0
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    counts = np.bincount(place)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks - (np.bincount(item, ranks) / np.bincount(item))[item]


def regress(sample: Sample, *, confidence: float = 0.95) -> Regression | str:
    """The regression of a sample's decided pairs, or why there is none. Soft labels count by their probability."""
    pairs = sample.pairs
    kept = np.flatnonzero(pairs.decided)
    weight, prompt = pairs.share[kept], pairs.prompts[kept]
    prompts = len(distinct(prompt))
    if prompts < MIN_PROMPTS:
        return f"there are {prompts} prompts with decided pairs; a regression needs {MIN_PROMPTS}"
    columns = _columns(sample, kept, weight, prompt)
    if "lead" not in columns:
        return "the scores (nearly) do not vary, or only with length and style, so that nothing can be told apart"
    x, label = np.stack(list(columns.values()), 1), pairs.probability[kept]
    fit, alone = _newton(x, label, weight), _newton(x[:, 1:], label, weight)
    if fit is None or alone is None:
        return "length, style and scores together put (nearly) every pair in the right order: no coefficients are best"
    win = _sigmoid(x @ fit)
    pull = np.linalg.solve((x.T * (weight * win * (1 - win))) @ x, (x.T * (weight * (label - win)))).T
    errors = [_error(each, prompt) for each in pull.T]
    terms = [
        Term(name, value, *_between(float, value, error, confidence))
        for name, value, error in zip(columns, fit.tolist(), errors, strict=True)
    ]
    gain = _loss(x[:, 1:] @ alone, label, weight) - _loss(x @ fit, label, weight)
    mass = np.bincount(prompt, weight)
    statistic = max(0.0, 2 * gain * float(mass.sum() / (mass @ mass)))
    failed = np.isnan(sample.lead[kept])
    value, error = _at_equal_style(float(fit[0]), x, failed, pull[:, 0], weight, prompt)
    if not 1e-9 < value < 1 - 1e-9:
        return "the scores follow length and style so closely that no coefficient of theirs can be told"
    interval = _between(_logistic, math.log(value / (1 - value)), error / (value * (1 - value)), confidence)
    return Regression(
        terms=tuple(terms),
        statistic=statistic,
        p=math.erfc(math.sqrt(statistic / 2)),  # chi-squared, one degree of freedom
        at_equal_style=Estimate(value, *interval, len(kept), "pairs", prompts),
        n=len(kept),
    )


def _columns(
    sample: Sample,
    kept: Int64[np.ndarray, " n"],
    weight: Float64[np.ndarray, " n"],
    prompt: Int64[np.ndarray, " n"],
) -> dict[str, Float64[np.ndarray, " n"]]:
    """The terms that no others before them add up to, with the lead judged last and placed first.

    One that differs in a handful of prompts is no term: where it is always on the winning side its coefficient is
    infinite, and there would be no regression at all.
    """
    ahead, behind = sample.pairs.ahead[kept], sample.pairs.behind[kept]
    styles = np.array([style for one in sample.facts for style in one.styles], np.float64)

    def unit(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        values = values / (np.abs(values).max() or 1.0)
        return values / (math.sqrt(np.average(values**2, weights=weight)) or 1.0)

    candidates = {"length": np.tanh(unit(sample.lengths[ahead] - sample.lengths[behind]))}
    for place, name in enumerate(("headers", "list_items", "bold")):
        candidates[name] = unit(styles[ahead, place] - styles[behind, place])
    candidates["lead"] = unit(np.nan_to_num(sample.lead[kept]))
    found: dict[str, Float64[np.ndarray, " n"]] = {}
    for name, column in candidates.items():
        if len(distinct(prompt[column != 0])) < MIN_DIFFERING:
            continue
        if np.linalg.matrix_rank(np.stack([*found.values(), column], 1), rtol=1e-6) > len(found):
            found = {name: column} | found if name == "lead" else found | {name: column}
    return found


def _newton(
    x: Float64[np.ndarray, "n k"], label: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " k"] | None:
    """Coefficients of least log loss; None where they run away, as under separation."""
    found = np.zeros(x.shape[1])
    for _ in range(40):
        win = _sigmoid(x @ found)
        hessian = (x.T * (weight * win * (1 - win))) @ x
        try:
            step = np.linalg.solve(hessian, x.T @ (weight * (label - win)))
        except np.linalg.LinAlgError:
            return None
        before = _loss(x @ found, label, weight)
        while _loss(x @ (found + step), label, weight) > before + 1e-9 * abs(before):
            step = step / 2
        found = found + step
        if np.abs(step).max(initial=0.0) < 1e-9 * (1 + np.abs(found).max(initial=0.0)):
            return found
    return None


def _at_equal_style(
    slope: float,
    x: Float64[np.ndarray, "n k"],
    failed: Bool[np.ndarray, " n"],
    pull: Float64[np.ndarray, " n"],
    weight: Float64[np.ndarray, " n"],
    prompt: Int64[np.ndarray, " n"],
) -> tuple[float, float]:
    """The mean of sigmoid(slope |lead|) and its standard error, the lead less what length and style explain of it.

    Its error comes from the sample of leads and from the slope, on which `pull` is each pair's influence. Taking style
    out adds next to none: what is left of the leads does not go with style.
    """
    lead, style, share = x[:, 0], x[:, 1:], weight / weight.sum()
    rest = lead - style @ np.linalg.solve((style.T * weight) @ style, style.T @ (weight * lead))
    win = np.where(failed, 0.0, _sigmoid(slope * np.abs(rest)))
    value = float(share @ win)
    by_slope = float((share * win * (1 - win)) @ np.abs(rest))
    return value, _error(share * (win - value) + by_slope * pull, prompt)


def _loss(
    lead: Float64[np.ndarray, " n"], label: Float64[np.ndarray, " n"], weight: Float64[np.ndarray, " n"]
) -> float:
    return float(weight @ (label * np.logaddexp(0, -lead) + (1 - label) * np.logaddexp(0, lead)))


def _sigmoid(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return 0.5 * (1 + np.tanh(x / 2))


def _logistic(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
