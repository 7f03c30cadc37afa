"""What length and style have to do with scores, held against scipy, statsmodels and brute force."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from prefrank.evaluation import Bootstrap, Sample
from prefrank.evaluation.style import Regression, correlation, item_correlations, regress, style
from prefrank.io import schema
from prefrank.types import Preference
from tests.evaluation.samples import facts, pair_sample, random_sample, scores

FEW = Bootstrap(200)


def longer(sample: Sample) -> np.ndarray:
    return sample.lengths[sample.pairs.ahead] - sample.lengths[sample.pairs.behind]


@pytest.mark.parametrize(("kind", "reference"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_are_scipys(kind: str, reference: object) -> None:
    sample = random_sample(0, items=300, prompts=300)
    sample = replace(sample, scores=tuple(scores(np.round([score.value for score in each])) for each in sample.scores))
    result = correlation(sample, kind)
    assert result.value == pytest.approx(reference(sample.margin, longer(sample)).statistic)
    assert (result.n, result.unit, result.prompts) == (300, "pairs", 300)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("replies", [2, 3])
def test_the_interval_of_a_correlation_is_that_of_leaving_prompts_out(kind: str, replies: int) -> None:
    sample = random_sample(1, items=120, prompts=60, replies=replies)
    result = correlation(sample, kind)
    z = [
        math.atanh(correlation(sample.take([k for k in range(120) if k % 60 != out]), kind).value) for out in range(60)
    ]
    error = math.sqrt(59 / 60 * float(((z - np.mean(z)) ** 2).sum()))  # the jackknife's (Tukey 1958)
    assert (math.atanh(result.high) - math.atanh(result.low)) / 2 / 1.959964 == pytest.approx(error, rel=0.06)
    assert (math.atanh(result.high) + math.atanh(result.low)) / 2 == pytest.approx(math.atanh(result.value))


def test_of_normal_variables_the_interval_is_fishers() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(size=(2, 4000))
    sample = pair_sample((x + y).tolist(), longer=(1000 * x).astype(int).clip(-999).tolist())
    result = correlation(sample, "spearman")
    z, high = math.atanh(result.value), math.atanh(result.high)
    assert result.value == pytest.approx(6 / math.pi * math.asin(math.sqrt(0.5) / 2), abs=0.03)
    assert high - z == pytest.approx(
        1.96 * math.sqrt((1 + result.value**2 / 2) / 4000), rel=0.08
    )  # Bonett, Wright 2000


def test_copies_of_a_pair_in_its_prompt_leave_a_correlation_as_it_is() -> None:
    sample = random_sample(3, items=50, prompts=50)
    copied = sample.take([*range(50), *range(50), *range(50)])
    for kind in ("pearson", "spearman"):
        alone, copies = correlation(sample, kind), correlation(copied, kind)
        assert (copies.value, copies.low, copies.high) == pytest.approx((alone.value, alone.low, alone.high))
        assert (copies.n, copies.prompts) == (150, 50)


@pytest.mark.parametrize("margins", [[1.0] * 5, [math.nan] * 5, [1.0]])
def test_what_does_not_vary_has_no_correlation(margins: list[float]) -> None:
    result = correlation(pair_sample(margins, longer=list(range(len(margins)))), "spearman")
    assert result.value is result.low is None


def test_few_prompts_and_perfect_order_have_no_interval() -> None:
    few = correlation(pair_sample([1.0, 3.0, 2.0], longer=[1, 2, 3]), "spearman")
    assert (few.value, few.low) == (pytest.approx(0.5), None)
    perfect = correlation(pair_sample([float(k) for k in range(40)], longer=list(range(40))), "pearson")
    assert (perfect.value, perfect.low) == (pytest.approx(1.0), None)


def test_correlations_inside_items_are_scipys() -> None:
    sample = random_sample(4, items=40, prompts=40, replies=6)
    rounded = tuple(scores(np.round([score.value / 4 for score in each])) for each in sample.scores)
    sample = Sample(tuple(replace(f, lengths=tuple(n // 60 for n in f.lengths)) for f in sample.facts), rounded)
    result = item_correlations(sample)
    for value, item_facts, each in zip(result, sample.facts, sample.scores, strict=True):
        ours = [score.value for score in each]
        if len(set(ours)) > 1 and len(set(item_facts.lengths)) > 1:
            assert value == pytest.approx(stats.spearmanr(ours, item_facts.lengths).statistic)
    assert style(sample, FEW).within_prompt.value == pytest.approx(np.nanmean(result))


def test_inside_an_item_equal_scores_order_nothing_and_equal_lengths_or_failures_do_not_count() -> None:
    sample = Sample(
        tuple(
            facts([Preference(0, 1)], lengths, prompt=k / 4) for k, lengths in enumerate([(9, 8)] * 2 + [(7, 7)] * 2)
        ),
        (scores([1.0, 1.0]), scores([math.nan, 0.0]), scores([1.0, 2.0]), scores([1.0, 1.0])),
    )
    assert item_correlations(sample).tolist() == pytest.approx([0.0, math.nan, math.nan, math.nan], nan_ok=True)
    result = style(sample, FEW).within_prompt
    assert (result.value, result.n, result.unit) == (0.0, 1, "items")


def test_a_model_of_length_alone_is_right_where_the_longer_is_better_and_gets_half() -> None:
    by_length = pair_sample([5.0, 9.0, 2.0, -3.0], longer=[5, 9, 2, -3])
    result = style(by_length, FEW)
    assert (result.longer.value, result.longer.n) == (1.0, 3)
    assert (result.shorter.value, result.shorter.n) == (0.0, 1)
    assert result.balanced.value == 0.5
    assert result.within_prompt.value == 1.0


def test_without_either_side_there_is_no_balance() -> None:
    result = style(pair_sample([1.0, -1.0], longer=[3, 0]), FEW)
    assert (result.longer.value, result.shorter.value, result.balanced.value) == (1.0, None, None)


def test_buckets_are_of_relative_length_difference() -> None:
    # (1000 + d - 1000) / (2000 + d): -0.98, -0.2, 0, 0.0476, 0.05, 0.2, 0.6
    result = style(pair_sample([1, -1, 0, 1, 1, -1, 1.0], longer=[-990, -333, 0, 100, 106, 500, 3000]), FEW)
    table = [(bucket.low, bucket.high, bucket.accuracy.value, bucket.accuracy.n) for bucket in result.buckets]
    assert table == [
        (-1.0, -0.5, 1.0, 1),
        (-0.5, -0.25, None, 0),
        (-0.25, -0.05, 0.0, 1),
        (-0.05, 0.05, 0.75, 2),
        (0.05, 0.25, 0.5, 2),
        (0.25, 0.5, None, 0),
        (0.5, 1.0, 1.0, 1),
    ]


def design(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The regression's terms by hand, with sides swapped at random; and whether the first side won."""
    pairs, marks = sample.pairs, np.array([counts for f in sample.facts for counts in f.styles], float)
    rms = lambda d: d / math.sqrt(np.mean(d**2))  # noqa: E731
    columns = [rms(sample.margin), np.tanh(rms(longer(sample)))]
    columns += [rms(marks[pairs.ahead, k] - marks[pairs.behind, k]) for k in range(3)]
    swap = np.where(np.random.default_rng(0).random(len(sample.margin)) < 0.5, -1.0, 1.0)
    return np.stack(columns, 1) * swap[:, None], (swap > 0).astype(float)


def test_the_regression_is_statsmodels() -> None:
    sample = random_sample(5, items=400, prompts=400)
    x, won = design(sample)
    full, style_alone = sm.Logit(won, x).fit(disp=0), sm.Logit(won, x[:, 1:]).fit(disp=0)
    robust = sm.Logit(won, x).fit(disp=0, cov_type="HC0")
    result = regress(sample)
    assert [term.name for term in result.terms] == ["margin", "length", "headers", "list_items", "bold"]
    assert [term.coefficient for term in result.terms] == pytest.approx(full.params.tolist(), rel=1e-6)
    widths = [(term.high - term.low) / 2 / 1.959964 for term in result.terms]
    assert widths == pytest.approx((robust.bse * math.sqrt(400 / 399)).tolist(), rel=1e-5)
    assert result.statistic == pytest.approx(2 * (full.llf - style_alone.llf), rel=1e-6)
    assert result.p == pytest.approx(stats.chi2.sf(result.statistic, 1))
    assert result.n == 400


def test_the_regressions_intervals_are_robust_to_pairs_that_share_a_prompt() -> None:
    sample = random_sample(6, items=300, prompts=60)
    x, won = design(sample)
    groups = {"groups": np.arange(300) % 60, "use_correction": False}
    want = sm.Logit(won, x).fit(disp=0, cov_type="cluster", cov_kwds=groups)
    widths = [(term.high - term.low) / 2 / 1.959964 for term in regress(sample).terms]
    assert widths == pytest.approx((want.bse * math.sqrt(60 / 59)).tolist(), rel=1e-5)


def test_copies_of_a_pair_in_its_prompt_leave_the_regression_as_it_is() -> None:
    sample = random_sample(7, items=80, prompts=80)
    alone, copies = regress(sample), regress(sample.take([*range(80)] * 3))
    assert copies.statistic == pytest.approx(alone.statistic)
    assert copies.at_equal_style.low == pytest.approx(alone.at_equal_style.low)
    for copy, term in zip(copies.terms, alone.terms, strict=True):
        assert (copy.coefficient, copy.low) == pytest.approx((term.coefficient, term.low))


def with_bonus(sample: Sample, bonus: float) -> Sample:
    """The same model with a bonus for headers."""
    values = [
        scores([score.value + bonus * mark[0] for score, mark in zip(each, f.styles, strict=True)])
        for f, each in zip(sample.facts, sample.scores, strict=True)
    ]
    return Sample(sample.facts, tuple(values))


def test_at_equal_style_a_bonus_for_style_changes_nothing() -> None:
    sample = random_sample(8, items=300, prompts=300)
    alone, loud = regress(sample), regress(with_bonus(sample, 3.0))
    assert loud.at_equal_style.value == pytest.approx(alone.at_equal_style.value)
    assert (loud.at_equal_style.low, loud.at_equal_style.high) == pytest.approx(
        (alone.at_equal_style.low, alone.at_equal_style.high)
    )
    assert loud.statistic == pytest.approx(alone.statistic)
    assert alone.at_equal_style.low < alone.at_equal_style.value < alone.at_equal_style.high


def test_at_equal_style_the_interval_is_that_of_leaving_prompts_out() -> None:
    sample = random_sample(9, items=160, prompts=80)
    result = regress(sample).at_equal_style
    logit = lambda p: math.log(p / (1 - p))  # noqa: E731
    left_out = [
        logit(regress(sample.take([k for k in range(160) if k % 80 != out])).at_equal_style.value) for out in range(80)
    ]
    error = math.sqrt(79 / 80 * float(((left_out - np.mean(left_out)) ** 2).sum()))
    assert (logit(result.high) - logit(result.low)) / 2 / 1.959964 == pytest.approx(error, rel=0.1)


def test_without_style_the_accuracy_at_equal_style_is_the_mean_probability() -> None:
    random = np.random.default_rng(10)
    size = np.abs(random.normal(0, 2, 5000))
    won = random.random(5000) < 1 / (1 + np.exp(-size))
    result = regress(pair_sample(np.where(won, size, -size).tolist()))
    assert [term.name for term in result.terms] == ["margin"]
    assert result.at_equal_style.value == pytest.approx(won.mean(), abs=0.01)
    margin = np.where(won, size, -size)
    loss = np.logaddexp(0, -margin * result.terms[0].coefficient / math.sqrt(np.mean(margin**2))).sum()
    assert result.statistic == pytest.approx(2 * (5000 * math.log(2) - loss))


def test_scores_that_know_nothing_gain_nothing() -> None:
    sample = random_sample(11, items=400, prompts=400)
    noise = np.random.default_rng(0).normal(size=(400, 2))
    result = regress(Sample(sample.facts, tuple(scores(each) for each in noise)))
    assert result.terms[0].low < 0 < result.terms[0].high
    assert result.p > 0.05
    assert result.at_equal_style.value == pytest.approx(0.5, abs=0.06)


def test_terms_that_others_add_up_to_are_left_out() -> None:
    sample = random_sample(12, items=100, prompts=100)
    same = tuple(replace(f, styles=tuple((n, 2 * n, 0) for n, _, _ in f.styles)) for f in sample.facts)
    assert [term.name for term in regress(Sample(same, sample.scores)).terms] == ["margin", "length", "headers"]


def test_a_style_of_few_prompts_is_no_term_and_spoils_no_regression() -> None:
    sample = random_sample(17, items=100, prompts=100)
    won = [item_facts.preferences[0].winner for item_facts in sample.facts]
    marks = [tuple((0, 0, int(k < 3 and reply == won[k])) for reply in (0, 1)) for k in range(100)]
    rare = tuple(replace(item_facts, styles=mark) for item_facts, mark in zip(sample.facts, marks, strict=True))
    assert [term.name for term in regress(Sample(rare, sample.scores)).terms] == ["margin", "length"]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (pair_sample([1.0] * 19), "19 prompts with decided pairs"),
        (pair_sample([1.0, 2.0] * 30, labels=[0.5] * 60), "0 prompts with decided pairs"),
        (pair_sample([0.0] * 30, longer=list(range(30))), "the scores (nearly) do not vary"),
        (pair_sample([math.nan] * 30, longer=list(range(30))), "the scores (nearly) do not vary"),
        (with_bonus(replace(random_sample(13), scores=(scores([0, 0]),) * 200), 2.0), "only with length and style"),
        (pair_sample([1.0, 2.0] * 15, longer=[1, -2, 3] * 10), "no coefficients are best"),
        (pair_sample([1.0] * 29 + [-1.0] * 25, longer=[0] * 29 + [5] * 25), "no coefficients are best"),
    ],
)
def test_where_there_is_no_regression_it_is_said_why(sample: Sample, message: str) -> None:
    result = style(sample, FEW)
    assert result.regression is None
    assert message in result.note
    json.dumps(schema.plain(result), allow_nan=False)


def test_a_failed_score_is_lost_at_equal_style_too() -> None:
    sample = random_sample(14, items=200, prompts=200)
    failed = Sample(sample.facts, tuple(scores([math.nan, 0.0]) if k < 100 else s for k, s in enumerate(sample.scores)))
    result = regress(failed)
    assert isinstance(result, Regression)
    assert result.at_equal_style.value < 0.5
    assert correlation(failed, "pearson").n == 100


def test_soft_labels_have_the_coefficients_and_errors_of_fractional_answers() -> None:
    random = np.random.default_rng(16)
    margins, labels = random.normal(size=300), random.uniform(0.55, 1.0, 300)
    result = regress(pair_sample(margins.tolist(), labels=labels.tolist())).terms[0]
    x = (margins / math.sqrt(np.mean(margins**2)))[:, None]
    want = sm.GLM(labels, x, family=sm.families.Binomial()).fit(cov_type="HC0")
    assert result.coefficient == pytest.approx(want.params[0])
    assert (result.high - result.low) / 2 / 1.959964 == pytest.approx(want.bse[0] * math.sqrt(300 / 299), rel=1e-5)


def test_soft_labels_count_by_their_probability() -> None:
    result = regress(pair_sample([1.0, 2.0] * 20, labels=[0.7, 0.9] * 20))
    # unit of margin: sqrt(2.5); the slope solves 0.7 + 2 * 0.9 = s(a) + 2 s(2 a), a = slope / unit
    a = result.terms[0].coefficient / math.sqrt(2.5)
    assert 1 / (1 + math.exp(-a)) + 2 / (1 + math.exp(-2 * a)) == pytest.approx(0.7 + 2 * 0.9)


def test_the_json_has_the_run_files_keys_and_no_nan() -> None:
    result = json.loads(json.dumps(schema.plain(style(random_sample(15), FEW)), allow_nan=False))
    assert set(result) == {
        *("pearson", "spearman", "within_prompt", "longer", "shorter", "balanced", "buckets", "regression", "note"),
    }
    assert set(result["regression"]) == {"terms", "statistic", "p", "at_equal_style", "n"}
    assert set(result["regression"]["terms"][0]) == {"name", "coefficient", "low", "high"}
    assert set(result["buckets"][0]) == {"low", "high", "accuracy"}
