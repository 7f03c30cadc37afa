import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from prefrank.training.losses import (
    LossSettings,
    Preferences,
    bradley_terry,
    count_correct,
    number_rows,
    reward_loss,
    squared_centre,
    squared_scores,
)
from prefrank.types import Preference


def pair(probability: float = 1.0, weight: float = 1.0, margin: float = 0.0) -> Preferences:
    return number_rows([[Preference(0, 1, probability, weight, margin)]], [0], weigh="pair")


def ranked(size: int) -> list[Preference]:
    """All pairs of replies given best first."""
    return [Preference(i, j) for i, j in combinations(range(size), 2)]


def test_one_pair_by_hand():
    scores = torch.tensor([1.0, -0.5])
    assert bradley_terry(scores, pair()).item() == pytest.approx(math.log(1 + math.exp(-1.5)))


def test_a_margin_is_taken_off_the_lead():
    scores = torch.tensor([1.0, -0.5])
    assert bradley_terry(scores, pair(margin=2.0)).item() == pytest.approx(math.log(1 + math.exp(0.5)))


def test_a_soft_label_mixes_both_outcomes():
    scores = torch.tensor([2.0, 0.0])
    expected = 0.8 * math.log(1 + math.exp(-2)) + 0.2 * math.log(1 + math.exp(2))
    assert bradley_terry(scores, pair(0.8)).item() == pytest.approx(expected)


def test_label_smoothing_is_a_chance_of_a_flipped_label():
    scores = torch.tensor([2.0, 0.0])
    assert torch.allclose(bradley_terry(scores, pair(), label_smoothing=0.2), bradley_terry(scores, pair(0.8)))
    assert torch.allclose(bradley_terry(scores, pair(0.5), label_smoothing=0.2), bradley_terry(scores, pair(0.5)))


def test_tied_replies_of_equal_score_give_no_gradient():
    scores = torch.tensor([0.7, 0.7], requires_grad=True)
    bradley_terry(scores, pair(0.5)).backward()
    assert scores.grad.tolist() == [0.0, 0.0]


def test_a_tie_pulls_unequal_scores_together():
    scores = torch.tensor([1.0, -1.0], requires_grad=True)
    bradley_terry(scores, pair(0.5)).backward()
    assert scores.grad[0] > 0 > scores.grad[1]


def test_score_terms_by_hand():
    scores = torch.tensor([3.0, -1.0])
    assert squared_scores(scores, pair(weight=2.0)).item() == pytest.approx(2 * 0.5 * (9 + 1))
    assert squared_centre(scores, pair(weight=2.0)).item() == pytest.approx(2 * (3 - 1) ** 2)


def test_score_terms_enter_with_their_coefficients():
    scores = torch.tensor([3.0, -1.0])
    both = reward_loss(scores, pair(), LossSettings(score_l2=0.1, centering=0.01))
    assert both.item() == pytest.approx(math.log(1 + math.exp(-4)) + 0.1 * 5 + 0.01 * 4, rel=1e-5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_huge_scores_overflow_neither_loss_nor_gradient(scale, probability):
    scores = torch.tensor([scale, -scale], requires_grad=True)
    loss = reward_loss(scores, pair(probability), LossSettings(label_smoothing=0.1, score_l2=1.0, centering=1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


def test_without_preferences_loss_and_gradient_are_zero():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = reward_loss(scores, number_rows([], []), LossSettings(score_l2=1.0, centering=1.0))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad.tolist() == [0.0, 0.0]


scores_strategy = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4)
probabilities = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(scores_strategy, probabilities, st.floats(-50, 50, width=32))
def test_a_constant_shift_of_all_scores_changes_nothing(scores, probability, shift):
    preferences = number_rows([[Preference(0, 1, probability), Preference(2, 3)]], [0])
    values = torch.tensor(scores, dtype=torch.float64)
    assert torch.allclose(bradley_terry(values, preferences), bradley_terry(values + shift, preferences))


@settings(deadline=None)
@given(scores_strategy, probabilities, st.floats(-2, 2, width=32), st.floats(0, 0.5, width=32))
def test_swapping_winner_and_loser_of_the_opposite_label_changes_nothing(scores, probability, margin, smoothing):
    values = torch.tensor(scores, dtype=torch.float64)
    one = number_rows([[Preference(0, 1, probability, margin=margin)]], [0])
    other = number_rows([[Preference(1, 0, 1.0 - probability, margin=-margin)]], [0])
    losses = [bradley_terry(values, each, label_smoothing=smoothing) for each in (one, other)]
    assert torch.allclose(*losses, rtol=1e-6, atol=1e-6)


def test_gradients_equal_finite_differences():
    preferences = number_rows([ranked(3), [Preference(0, 1, 0.7, 2.0, 0.3)]], [0, 3], weights=[1.0, 0.5])
    terms = LossSettings(label_smoothing=0.1, score_l2=0.3, centering=0.2)
    scores = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: reward_loss(values, preferences, terms), [scores])


def test_groups_match_the_published_open_assistant_rm_loss():
    """RMLoss of Open Assistant: per group the mean over pairs i < j of the ranked replies, then the mean of groups."""
    groups, beta = [torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.3, 0.9])], 0.001
    expected = []
    for group in groups:
        pairs = [(group[i], group[j]) for i, j in combinations(range(len(group)), 2)]
        each = [-logsigmoid(a - b) + beta * 0.5 * (a**2 + b**2) for a, b in pairs]
        expected.append(torch.stack(each).mean())
    preferences = number_rows([ranked(3), ranked(2)], [0, 3])
    ours = reward_loss(torch.cat(groups), preferences, LossSettings(score_l2=beta)) / 2
    assert torch.allclose(ours, torch.stack(expected).mean())


@pytest.mark.parametrize("size", [2, 4, 9])
def test_a_ranked_prompt_matches_the_instructgpt_mean_over_k_choose_2(size):
    scores = torch.randn(size, generator=torch.Generator().manual_seed(size))
    expected = sum(-logsigmoid(scores[i] - scores[j]) for i, j in combinations(range(size), 2)) / math.comb(size, 2)
    assert torch.allclose(bradley_terry(scores, number_rows([ranked(size)], [0])), expected)


def test_a_comparison_counts_once_however_many_preferences_it_has():
    preferences = number_rows([ranked(4), ranked(2)], [0, 4])
    assert preferences.weight[:6].sum().item() == pytest.approx(1.0)
    assert preferences.weight[6:].sum().item() == pytest.approx(1.0)


def test_weighing_by_pair_keeps_the_given_weights():
    groups = [[Preference(0, 1, weight=3.0), Preference(1, 2)]]
    assert number_rows(groups, [0], weigh="pair").weight.tolist() == [3.0, 1.0]
    assert number_rows(groups, [0]).weight.tolist() == [0.75, 0.25]


def test_a_data_sets_weight_multiplies_its_comparisons():
    assert number_rows([ranked(2), ranked(2)], [0, 2], weights=[1.0, 0.25]).weight.tolist() == [1.0, 0.25]


def test_rows_are_counted_from_each_comparisons_first():
    preferences = number_rows([ranked(2), [Preference(2, 0)]], [0, 2])
    assert preferences.winner.tolist() == [0, 4]
    assert preferences.loser.tolist() == [1, 2]


def test_right_order_counts_one_wrong_none_and_equal_scores_or_ties_one_half():
    groups = [[Preference(0, 1), Preference(1, 0), Preference(0, 2), Preference(0, 1, 0.5), Preference(0, 1, 0.2)]]
    scores = torch.tensor([1.0, 0.0, 1.0])
    assert count_correct(scores, number_rows(groups, [0])).tolist() == [1.0, 0.0, 0.5, 0.5, 0.0]
