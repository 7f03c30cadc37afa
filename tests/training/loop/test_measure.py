import math

import pytest
import torch
from scipy.stats import binomtest

from prefrank.errors import Diverged
from prefrank.text import TextEncoder, TextSettings
from prefrank.training.feed.examples import encode
from prefrank.training.loop.measure import evaluate_sets, measure, pool
from prefrank.types import Comparison, Preference, Turn


@pytest.fixture
def examples(bert):
    """A ranked triple (two pairs and a tie), a pair, and a tie alone: rows 0 to 2, 3 to 4, 5 to 6."""
    encoder = TextEncoder.load(bert, TextSettings("pair", 32))
    groups = [
        (("a", "b", "c"), (Preference(0, 1), Preference(0, 2), Preference(1, 2, 0.5))),
        (("a", "b"), (Preference(1, 0),)),
        (("a", "b"), (Preference(0, 1, 0.5),)),
    ]
    prompt = (Turn("user", "question"),)
    return encode([Comparison(prompt, *group, "made", str(n)) for n, group in enumerate(groups)], encoder)[0]


def test_each_comparison_counts_once_and_human_ties_not_for_accuracy(examples):
    metrics = measure(torch.tensor([1.0, 2.0, 0.0, 0.0, 1.0, 5.0, 0.0]), examples)
    assert metrics.accuracy == pytest.approx((0.5 + 1.0) / 2)
    assert (metrics.comparisons, metrics.decided, metrics.pairs, metrics.ties) == (3, 2, 3, 2)


def test_equal_scores_are_one_half_right_and_ln_2(examples):
    metrics = measure(torch.zeros(7), examples)
    assert metrics.accuracy == 0.5
    assert metrics.log_loss == pytest.approx(math.log(2))


def test_log_loss_by_hand(examples):
    scores = torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0])
    soft = lambda difference: math.log(1 + math.exp(-difference))  # noqa: E731
    triple = (soft(1) + soft(1) + soft(0)) / 3
    expected = (triple + soft(2) + (soft(1) + soft(-1)) / 2) / 3
    assert measure(scores, examples).log_loss == pytest.approx(expected)


def test_the_interval_is_wilsons(examples):
    theirs = binomtest(1, 2).proportion_ci(method="wilson")
    assert measure(torch.zeros(7), examples).interval == pytest.approx((theirs.low, theirs.high))


def test_without_pairs_nothing_is_known():
    assert pool([]).interval == (0.0, 1.0)


def test_ties_alone_leave_accuracy_at_one_half_and_open(bert):
    encoder = TextEncoder.load(bert, TextSettings("pair", 32))
    tie = Comparison((Turn("user", "question"),), ("a", "b"), (Preference(0, 1, 0.5),), "made", "0")
    metrics = measure(torch.tensor([1.0, 0.0]), encode([tie], encoder)[0])
    assert (metrics.decided, metrics.accuracy, metrics.interval) == (0, 0.5, (0.0, 1.0))


def test_pooled_sets_equal_one_set_of_all(examples, bert):
    scores = torch.tensor([1.0, 2.0, 0.0, 0.0, 1.0, 5.0, 0.0])
    whole = measure(scores, examples)
    twice = pool([whole, whole])
    assert (twice.comparisons, twice.accuracy) == (6, whole.accuracy)
    assert twice.log_loss == pytest.approx(whole.log_loss)
    assert twice.interval[1] - twice.interval[0] < whole.interval[1] - whole.interval[0]
    nothing = pool([])
    assert (nothing.accuracy, nothing.interval, nothing.log_loss) == (0.5, (0.0, 1.0), 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_stops_and_names_its_comparison(examples, bad):
    scores = torch.zeros(7)
    scores[4] = bad
    with pytest.raises(Diverged, match="the evaluation on set gives scores that are not finite for made/1;"):
        evaluate_sets(lambda _: scores, {"set": examples})
