"""Length and style: does a model follow them, and what is it worth where they are equal?

Differences are taken preferred minus other, so that every term changes sign with the sides and none needs randomising.

- Intervals of correlations and coefficients come from no resampling but from each pair's influence on the figure, over
  prompts (`clustered_error`). It counts that a pair's coming or going moves the ranks.
- Every pair weighs as in `accuracy`: its share of its item. For the likelihood ratio the weights are brought down
  until they add up to the number of prompts that count (Kish 1965), or ten pairs of a prompt would pass for ten.
- A failed score orders nothing: its pair is lost in accuracies, has a margin of 0 in the regression, and is left out of
  correlations.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.evaluation.samples import Sample
from prefrank.evaluation.slices import figure_of, share_of
from prefrank.stats.arrays import distinct, in_groups
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Probability, Share, Signed
from prefrank.stats.correlation import plain_moments, rank_moments
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure, mean_figure
from prefrank.stats.intervals import clustered_error, normal_interval
from prefrank.stats.ranks import dense, spearman_in_groups
from prefrank.stats.regression import (
    coefficient_influences,
    logistic_regression,
    sigmoid,
    sigmoid_of,
    summed_loss,
)

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
    accuracy: Share


@dataclass(frozen=True, slots=True)
class Term:
    """A coefficient of the regression, for one standard unit of its term, and its cluster-robust interval."""

    name: str
    coefficient: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Regression:
    """Logistic regression of which reply is preferred, without intercept, on margin and differences of style.

    Args:
        terms: margin, tanh of the length difference, headers, list items, bold; each difference divided by its root
            mean square. A term that differs in fewer than 10 prompts, or that others add up to, is left out.
        statistic: likelihood ratio of the margin's term, 2 (log L - log L without it).
        p: of that under chi-squared with one degree of freedom.
        at_equal_style: P(people prefer the reply with the higher score) where all style terms are 0: the regression's,
            for the margins less what length and style explain of them. A bonus for length in the scores changes
            nothing.
        n: pairs.
    """

    terms: tuple[Term, ...]
    statistic: float
    p: Probability
    at_equal_style: Share
    n: int


@dataclass(frozen=True, slots=True)
class Style:
    """What length and style have to do with the scores.

    Args:
        pearson, spearman: of margin and length difference, over decided pairs.
        within_prompt: mean over items of Spearman's correlation of score and length; of two replies it is 1 or -1, and
            0 where all scores are equal.
        longer, shorter: accuracy where the preferred reply is the longer, the shorter one.
        balanced: their mean; the longer reply, or the shorter one, always winning gets 1/2.
        buckets: accuracy by relative length difference.
        regression: None where there is none.
        note: why not.
    """

    pearson: Signed
    spearman: Signed
    within_prompt: Signed
    longer: Share
    shorter: Share
    balanced: Share
    buckets: tuple[Bucket, ...]
    regression: Regression | None
    note: str | None = None


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def style(sample: Sample, bootstrap: Bootstrap | None = None) -> Style:
    """All of it."""
    settings, pairs = bootstrap or Bootstrap(), sample.pairs
    weight, right, level = pairs.share, sample.wins, settings.confidence
    longer, shorter = (
        figure_of(right, np.where(chosen, weight, 0.0), pairs) for chosen in (sample.longer > 0, sample.longer < 0)
    )
    figures = {"longer": longer, "shorter": shorter, "balanced": _half_each(longer, shorter)}
    estimates = estimate_all(figures | {"within_prompt": _within_prompt(sample)}, settings)
    both = sample.lengths[pairs.ahead] + sample.lengths[pairs.behind]
    bucket = np.digitize(sample.longer / np.maximum(both, 1.0), EDGES[1:-1])
    by_bucket, none = dict(in_groups(bucket, weight)), np.zeros(0, np.int64)
    parts = [
        share_of(right, weight, pairs, confidence=level, kept=by_bucket.get(place, none))
        for place in range(len(EDGES) - 1)
    ]
    fitted = regress(sample, confidence=level)
    return Style(
        pearson=correlation(sample, "pearson", confidence=level),
        spearman=correlation(sample, "spearman", confidence=level),
        within_prompt=estimates["within_prompt"],
        longer=estimates["longer"],
        shorter=estimates["shorter"],
        balanced=estimates["balanced"],
        buckets=tuple(map(Bucket, EDGES[:-1], EDGES[1:], parts)),
        regression=fitted if isinstance(fitted, Regression) else None,
        note=fitted if isinstance(fitted, str) else None,
    )


def correlation(sample: Sample, kind: Literal["pearson", "spearman"], *, confidence: float = 0.95) -> Estimate:
    """Correlation of margin and length difference over decided pairs; its interval is symmetric in atanh (Fisher 1921).

    No value where either does not vary.
    """
    pairs = sample.pairs
    kept = np.flatnonzero(pairs.decided & np.isfinite(sample.margin))
    weight, prompt = pairs.share[kept], pairs.prompts[kept]
    margin, longer = sample.margin[kept], sample.longer[kept]
    prompts = len(distinct(prompt))
    if not len(kept) or not margin.max() > margin.min() or not longer.max() > longer.min():
        return Estimate(None, None, None, len(kept), "pairs", prompts)
    share, most = weight / weight.sum(), float(np.abs(margin).max())
    if kind == "pearson":
        moments = plain_moments(margin / most, longer, share)
    else:
        moments = rank_moments(dense(_signed_places(sample, most)[kept]), dense(sample.by_longer.place[kept]), share)
    value = moments.correlation
    if value is None or prompts < MIN_PROMPTS or abs(value) > 1 - 1e-12:
        return Estimate(value, None, None, len(kept), "pairs", prompts)
    error = clustered_error(share * moments.influence(value), prompt) / (1 - value**2)
    interval = normal_interval(math.atanh(value), error, confidence=confidence, back=math.tanh)
    return Estimate(value, *interval, len(kept), "pairs", prompts)


def _signed_places(sample: Sample, most: float) -> Int64[np.ndarray, " P"]:
    """A number for each margin over `most`, in their order, equal for equal ones: without another sort."""
    scaled = sample.sizes.values / most  # rounding may make two of them equal
    place = np.cumsum(np.diff(scaled, prepend=0.0) > 0)[sample.sizes.place]
    return np.where(sample.margin < 0, -place, place) + int(place.max(initial=0))


def _half_each(longer: Figure, shorter: Figure) -> Figure:
    parts = tuple(replace(part, coefficient=0.5) for part in (*longer.parts, *shorter.parts))
    return Figure(parts if len(parts) == 2 else (), longer.n + shorter.n, "pairs")


def _within_prompt(sample: Sample) -> Figure:
    correlations, prompts = item_correlations(sample), sample.pairs.prompt
    kept = np.flatnonzero(~np.isnan(correlations))
    return mean_figure(correlations[kept], prompts[kept], bounds=(-1.0, 1.0))


def item_correlations(sample: Sample) -> Float64[np.ndarray, " C"]:
    """Spearman's, of score and length in each item; 0 for equal scores, NaN for equal lengths or a failed score."""
    item = np.repeat(np.arange(len(sample.facts)), np.diff(sample.pairs.first))
    failed = np.bincount(item, np.isnan(sample.values)) > 0
    return np.where(failed, np.nan, spearman_in_groups(sample.values, sample.lengths, item))


def regress(sample: Sample, *, confidence: float = 0.95) -> Regression | str:
    """The regression of a sample's decided pairs, or why there is none. Soft labels count by their probability."""
    pairs = sample.pairs
    kept = np.flatnonzero(pairs.decided)
    weight, prompt = pairs.share[kept], pairs.prompts[kept]
    prompts = len(distinct(prompt))
    if prompts < MIN_PROMPTS:
        return f"there are {prompts} prompts with decided pairs; a regression needs {MIN_PROMPTS}"
    columns = _columns(sample, kept, weight, prompt)
    if "margin" not in columns:
        return "the scores (nearly) do not vary, or only with length and style, so that nothing can be told apart"
    x, label = np.stack(list(columns.values()), 1), pairs.probability[kept]
    fit, alone = logistic_regression(x, label, weight), logistic_regression(x[:, 1:], label, weight)
    if fit is None or alone is None:
        return "length, style and scores together put (nearly) every pair in the right order: no coefficients are best"
    pull = coefficient_influences(x, label, weight, fit)
    errors = [clustered_error(column, prompt) for column in pull.T]
    terms = [
        Term(name, value, *normal_interval(value, error, confidence=confidence))
        for name, value, error in zip(columns, fit.tolist(), errors, strict=True)
    ]
    gain = summed_loss(x[:, 1:] @ alone, label, weight) - summed_loss(x @ fit, label, weight)
    mass = np.bincount(prompt, weight)
    statistic = max(0.0, 2 * gain * float(mass.sum() / (mass @ mass)))
    failed = np.isnan(sample.margin[kept])
    value, error = _at_equal_style(float(fit[0]), x, failed, pull[:, 0], weight, prompt)
    if not 1e-9 < value < 1 - 1e-9:
        return "the scores follow length and style so closely that no coefficient of theirs can be told"
    logit, error = math.log(value / (1 - value)), error / (value * (1 - value))
    interval = normal_interval(logit, error, confidence=confidence, back=sigmoid_of)
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
    """The terms that no others before them add up to, with the margin judged last and placed first.

    One that differs in a handful of prompts is not a term: where it is always on the winning side its coefficient is
    infinite, and there would be no regression at all.
    """
    ahead, behind = sample.pairs.ahead[kept], sample.pairs.behind[kept]
    styles = np.array([style for facts in sample.facts for style in facts.styles], np.float64)

    def unit(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        values = values / (np.abs(values).max() or 1.0)
        return values / (math.sqrt(np.average(values**2, weights=weight)) or 1.0)

    candidates = {"length": np.tanh(unit(sample.lengths[ahead] - sample.lengths[behind]))}
    for place, name in enumerate(("headers", "list_items", "bold")):
        candidates[name] = unit(styles[ahead, place] - styles[behind, place])
    candidates["margin"] = unit(np.nan_to_num(sample.margin[kept]))
    columns: dict[str, Float64[np.ndarray, " n"]] = {}
    for name, column in candidates.items():
        if len(distinct(prompt[column != 0])) < MIN_DIFFERING:
            continue
        if np.linalg.matrix_rank(np.stack([*columns.values(), column], 1), rtol=1e-6) > len(columns):
            columns = {name: column} | columns if name == "margin" else columns | {name: column}
    return columns


def _at_equal_style(
    slope: float,
    x: Float64[np.ndarray, "n k"],
    failed: Bool[np.ndarray, " n"],
    pull: Float64[np.ndarray, " n"],
    weight: Float64[np.ndarray, " n"],
    prompt: Int64[np.ndarray, " n"],
) -> tuple[float, float]:
    """The mean of sigmoid(slope |margin|) and its standard error, the margin less what length and style explain of it.

    Its error comes from the sample of margins and from the slope, on which `pull` is each pair's influence. Taking
    style out adds next to none: what is left of the margins does not go with style.
    """
    margin, style, share = x[:, 0], x[:, 1:], weight / weight.sum()
    rest = margin - style @ np.linalg.solve((style.T * weight) @ style, style.T @ (weight * margin))
    win = np.where(failed, 0.0, sigmoid(slope * np.abs(rest)))
    value = float(share @ win)
    by_slope = float((share * win * (1 - win)) @ np.abs(rest))
    return value, clustered_error(share * (win - value) + by_slope * pull, prompt)
