import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from prefrank.errors import BadInput
from prefrank.evaluation import Bootstrap, Estimate, Metrics, Sample, measure, sample_of
from prefrank.evaluation.metrics import measure_subsets, metric_figures
from prefrank.io.schema import plain
from prefrank.stats.estimates import estimate_all
from prefrank.types import Comparison, Preference, Turn
from tests.evaluation.making import comparison, preference, ranking, scored

FAST = Bootstrap(resamples=50)
FINITE = st.floats(-50, 50).map(lambda value: round(value, 1))
ESTIMATES = [
    "accuracy", "accuracy_ties_lost", "accuracy_by_pair", "log_loss", "margin",
    "best_worst", "best_worst_published", "kendall_tau", "length_accuracy",
]  # fmt: skip


def measured(comparisons: list[Comparison], values: list[list[float]]) -> Metrics:
    return measure(sample_of(comparisons, [scored(each) for each in values]), bootstrap=FAST)


def pair(*preferences: Preference, prompt: str = "why?") -> Comparison:
    return comparison(["a long reply", "short"], preferences or [preference(0, 1)], prompt=prompt)


def test_a_right_pair_a_wrong_pair_and_equal_scores_make_one_and_a_half_of_three() -> None:
    comparisons = [pair(prompt=f"question {i}") for i in range(3)]
    result = measured(comparisons, [[2, 1], [1, 2], [1, 1]])
    assert result.accuracy.value == 0.5
    assert result.counts.score_ties == 1
    assert (result.accuracy.n, result.accuracy.prompts, result.accuracy.unit) == (3, 3, "pairs")


def test_tied_preferences_count_in_log_loss_but_not_in_accuracy() -> None:
    result = measured([pair(prompt="a"), pair(preference(0, 1, 0.5), prompt="b")], [[1, 0], [4, 0]])
    assert result.accuracy == measured([pair(prompt="a")], [[1, 0]]).accuracy
    assert (result.counts.pairs, result.counts.ties) == (2, 1)
    tied = 0.5 * math.log1p(math.exp(-4)) + 0.5 * math.log1p(math.exp(4))
    assert result.log_loss.value == pytest.approx((math.log1p(math.exp(-1)) + tied) / 2)
    assert result.log_loss.n == 2


def test_only_ties_give_no_accuracy() -> None:
    result = measured([pair(preference(0, 1, 0.5))], [[1, 0]])
    assert result.accuracy == Estimate(None, None, None, 0, "pairs", 0)
    assert result.margin.value is result.best_worst.value is result.length_accuracy.value is None
    assert result.log_loss.value is not None


def test_soft_labels_are_judged_by_their_majority() -> None:
    result = measured([pair(preference(0, 1, 0.3))], [[1, 3]])
    assert result.accuracy.value == 1.0
    assert result.margin.value == 2.0
    expected = 0.7 * math.log1p(math.exp(-2)) + 0.3 * math.log1p(math.exp(2))
    assert result.log_loss.value == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_failed_score_is_a_loss_and_counted_never_a_win(bad: float, place: int) -> None:
    values = [[1.0, 0.0], [1.0, 0.0]]
    values[0][place] = bad
    result = measured([pair(prompt="a"), pair(prompt="b")], values)
    assert result.accuracy.value == result.best_worst.value == result.best_worst_published.value == 0.5
    assert (result.counts.failures, result.counts.failed_pairs) == (1, 1)
    assert result.log_loss.value is result.margin.value is None
    assert result.log_loss.n == 2


def test_a_scorer_that_only_fails_gets_nothing() -> None:
    result = measured([ranking(4)], [[math.nan] * 4])
    assert result.accuracy.value == result.best_worst_published.value == 0.0
    assert result.kendall_tau.value == -1.0


def test_a_failed_score_of_a_reply_that_nobody_compared_costs_no_pair() -> None:
    result = measured([comparison(["a", "b", "c"], [preference(0, 1)])], [[1, 0, math.nan]])
    assert (result.accuracy.value, result.counts.failures, result.counts.failed_pairs) == (1.0, 1, 0)
    assert result.log_loss.value is not None


def test_a_ranking_counts_as_much_as_a_pair_unless_pairs_are_asked_for() -> None:
    # The ranking of 3 has all three pairs right, the single pair is wrong.
    result = measured([ranking(3), pair(prompt="other")], [[3, 2, 1], [0, 1]])
    assert result.accuracy.value == 0.5
    assert result.accuracy_by_pair.value == 0.75
    assert result.accuracy.n == result.accuracy_by_pair.n == 4
    assert result.accuracy.prompts == 2


def test_weights_count_inside_their_comparison_only() -> None:
    weighted = comparison(["a", "b", "c"], [preference(0, 1, weight=3.0), preference(1, 2, weight=1.0)])
    result = measured([weighted, pair(prompt="other")], [[1, 0, 5], [0, 1]])
    assert result.accuracy.value == pytest.approx((0.75 + 0) / 2)
    assert result.accuracy_by_pair.value == pytest.approx((0.75 * 2 + 0) / 3)


def test_prompts_of_one_conversation_start_are_one_independent_unit() -> None:
    start = Turn("user", "why?")
    later = (start, Turn("assistant", "because"), Turn("user", "really?"))
    comparisons = [
        Comparison(prompt, ("a", "b"), (Preference(0, 1),), "set", str(i)) for i, prompt in enumerate([(start,), later])
    ]
    result = measured(comparisons, [[1, 0], [1, 0]])
    assert (result.accuracy.n, result.accuracy.prompts, result.counts.prompts) == (2, 1, 1)


def test_equal_scores_are_a_win_only_in_the_published_best_against_worst() -> None:
    result = measured([ranking(3)], [[1, 1, 1]])
    assert (result.best_worst.value, result.best_worst_published.value) == (0.5, 1.0)
    assert (result.best_worst.n, result.best_worst.unit) == (1, "comparisons")
    assert result.accuracy.value == 0.5


def test_best_against_worst_looks_at_the_ends_alone() -> None:
    result = measured([ranking(4)], [[4, 1, 2, 3]])
    assert result.best_worst.value == 1.0
    assert result.accuracy.value == 0.5


def test_best_against_worst_skips_what_people_did_not_compare() -> None:
    chain = comparison(["a", "b", "c"], [preference(0, 1), preference(1, 2)])
    cycle = comparison(["a", "b", "c"], [preference(0, 1), preference(1, 2), preference(2, 0)], prompt="other")
    result = measured([chain, cycle], [[3, 2, 1], [3, 2, 1]])
    assert result.best_worst.n == result.best_worst_published.n == 0


def test_several_votes_on_the_ends_are_one_comparison() -> None:
    result = measured([pair(preference(0, 1), preference(0, 1), preference(1, 0))], [[1, 0]])
    assert (result.best_worst.value, result.best_worst.n) == (1.0, 1)
    assert result.accuracy.value == pytest.approx(2 / 3)


def test_tau_of_a_hand_computed_ranking() -> None:
    # Best first, scores 3 1 2: pairs (0,1) and (0,2) agree, (1,2) does not.
    assert measured([ranking(3)], [[3, 1, 2]]).kendall_tau.value == pytest.approx(1 / 3)


def test_tau_needs_more_than_two_replies() -> None:
    result = measured([pair(), ranking(3, prompt="other")], [[1, 0], [3, 2, 1]])
    assert (result.kendall_tau.value, result.kendall_tau.n) == (1.0, 1)


def test_equal_scores_throughout_have_tau_0() -> None:
    assert measured([ranking(4)], [[1, 1, 1, 1]]).kendall_tau.value == 0.0


def ranked(ranks: list[int]) -> Comparison:
    """Every pair stated, equal ranks as ties."""
    count = len(ranks)
    stated = [
        preference(i, j, 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j]))
        for i in range(count) for j in range(i + 1, count)
    ]  # fmt: skip
    return comparison([f"reply {i}" for i in range(count)], stated)


@hypothesis_settings(deadline=None, max_examples=60)
@given(data=st.data(), count=st.integers(3, 7))
def test_tau_of_a_complete_ranking_is_scipys_tau_b(data: st.DataObject, count: int) -> None:
    ranks = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count).filter(lambda r: len(set(r)) > 1))
    values = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count).filter(lambda v: len(set(v)) > 1))
    expected = stats.kendalltau([-rank for rank in ranks], values, variant="b").statistic
    assert measured([ranked(ranks)], [values]).kendall_tau.value == pytest.approx(expected)


def test_length_accuracy_is_of_the_same_pairs_in_characters() -> None:
    comparisons = [
        comparison(["long reply", "short"], [preference(0, 1)], prompt="a"),
        comparison(["long reply", "short"], [preference(1, 0)], prompt="b"),
        comparison(["a longer reply", "short"], [preference(0, 1)], prompt="e"),
        comparison(["same", "size"], [preference(0, 1)], prompt="c"),
        comparison(["tied and long", "tied"], [preference(0, 1, 0.5)], prompt="d"),
    ]
    result = measured(comparisons, [[0, 1]] * 5)
    assert (result.length_accuracy.value, result.length_accuracy.n) == (2.5 / 4, 4)


def test_cut_rows_are_counted() -> None:
    scores = [scored([1, 0], cut_prompt=3), scored([1, 0], cut_prompt=1, cut_reply=2)]
    counts = measure(sample_of([pair(prompt="a"), pair(prompt="b")], scores), bootstrap=FAST).counts
    assert (counts.replies, counts.cut_prompts, counts.cut_replies) == (4, 4, 2)


def test_nothing_measured_has_no_values_anywhere() -> None:
    result = measured([], [])
    assert {str(getattr(result, name)) for name in ESTIMATES} == {"-"}
    assert result.counts.comparisons == result.counts.pairs == 0


def test_tied_preferences_are_no_score_ties_and_no_failed_pairs() -> None:
    tied = [pair(preference(0, 1, 0.5), prompt=name) for name in "ab"]
    counts = measured(tied, [[1, 1], [math.nan, 1]]).counts
    assert (counts.ties, counts.score_ties, counts.failures, counts.failed_pairs) == (2, 0, 1, 0)


def test_scores_that_do_not_match_are_refused() -> None:
    with pytest.raises(BadInput, match="one score per reply"):
        measured([pair()], [[1, 2, 3]])


def test_results_are_strict_json_whatever_the_scores() -> None:
    for values in ([1, 0, 2], [math.nan, 1, 2], [1e308, -1e308, 0], [1, 1, 1]):
        text = json.dumps(plain(measured([ranking(3)], [values])), allow_nan=False)
        assert set(json.loads(text)) == {*ESTIMATES, "counts"}


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1, max_size=6),
    shift=st.floats(-9, 9), scale=st.floats(0.5, 4),
)  # fmt: skip
def test_a_shift_changes_nothing_and_a_scale_no_order(values: list[list[float]], shift: float, scale: float) -> None:
    comparisons = [ranking(3, prompt=f"question {i}") for i in range(len(values))]
    before = measured(comparisons, values)
    scaled = measured(comparisons, [[scale * value for value in each] for each in values])
    moved = measured(comparisons, [[value + i for value in each] for i, each in enumerate(values)])
    assert scaled.accuracy == before.accuracy
    assert scaled.kendall_tau == before.kendall_tau
    assert moved.log_loss.value == pytest.approx(before.log_loss.value, abs=1e-9)
    assert moved.margin.value == pytest.approx(before.margin.value, abs=1e-9)


@hypothesis_settings(deadline=None, max_examples=40)
@given(values=st.lists(st.lists(FINITE, min_size=4, max_size=4), min_size=1, max_size=6), data=st.data())
def test_the_order_of_replies_and_of_a_preference_does_not_matter(
    values: list[list[float]], data: st.DataObject
) -> None:
    before = [ranking(4, prompt=f"question {i}") for i in range(len(values))]
    places = data.draw(st.permutations(range(4)))
    after = [
        comparison(
            [c.replies[old] for old in places],
            [preference(places.index(p.loser), places.index(p.winner), 0.0) for p in c.preferences],
            prompt=c.prompt[0].text,
        )
        for c in before
    ]
    first, second = measured(before, values), measured(after, [[each[old] for old in places] for each in values])
    assert first.counts == second.counts
    for name in ESTIMATES:
        assert getattr(first, name).value == pytest.approx(getattr(second, name).value)


def test_labels_and_their_opposites_add_up_to_one() -> None:
    random = np.random.default_rng(0)
    comparisons = [ranking(4, prompt=f"question {i}") for i in range(20)]
    values = random.normal(size=(20, 4)).round(1)
    forward, backward = measured(comparisons, values.tolist()), measured(comparisons, (-values).tolist())
    assert forward.accuracy.value + backward.accuracy.value == pytest.approx(1.0)
    assert forward.kendall_tau.value == pytest.approx(-backward.kendall_tau.value)
    assert forward.best_worst.value + backward.best_worst.value == pytest.approx(1.0)


def test_equal_scores_are_lost_where_ties_are_lost() -> None:
    comparisons = [pair(prompt=f"question {i}") for i in range(4)]
    result = measured(comparisons, [[2, 1], [1, 2], [1, 1], [math.nan, 1]])
    assert (result.accuracy.value, result.accuracy_ties_lost.value) == (1.5 / 4, 1 / 4)


def subsets_sample() -> Sample:
    random = np.random.default_rng(0)
    comparisons = [
        comparison(["a long reply", "short"], [preference(0, 1)], prompt=f"question {i}", source=source, id=str(i))
        for i, source in enumerate(["late"] * 20 + ["early"] * 30)
    ]
    margins = np.concatenate([random.normal(3, 1, 20), random.normal(-3, 1, 30)])
    return sample_of(comparisons, [scored([margin, 0.0]) for margin in margins])


def test_subsets_are_measured_by_their_own_prompts_in_order_of_appearance() -> None:
    sample = subsets_sample()
    _, subsets = measure_subsets(sample, FAST)
    assert list(subsets) == ["late", "early"]
    assert subsets["late"] == measure(sample.take(range(20)), FAST)
    assert subsets["early"] == measure(sample.take(range(20, 50)), FAST)


def test_overall_the_subsets_keep_their_sizes() -> None:
    sample = subsets_sample()
    overall, _ = measure_subsets(sample, FAST)
    pooled = measure(sample, FAST)
    assert overall.margin.value == pooled.margin.value
    # what lies between the subsets is not the uncertainty of the whole
    assert overall.margin.high - overall.margin.low < 0.5 * (pooled.margin.high - pooled.margin.low)
    assert overall.accuracy.high - overall.accuracy.low < pooled.accuracy.high - pooled.accuracy.low


def test_one_subset_alone_is_the_whole() -> None:
    sample = subsets_sample().take(range(20))
    overall, subsets = measure_subsets(sample, FAST)
    assert subsets == {"late": overall}
    assert overall == measure(sample, FAST)
    assert measure_subsets(sample_of([], []), FAST)[1] == {}


def test_figures_have_the_metrics_names_and_values() -> None:
    sample = subsets_sample()
    estimates, metrics = estimate_all(metric_figures(sample), FAST), measure(sample, FAST)
    assert list(estimates) == ESTIMATES
    assert all(getattr(metrics, name) == estimate for name, estimate in estimates.items())
