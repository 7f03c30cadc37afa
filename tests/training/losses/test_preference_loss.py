import math
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch.nn.functional import logsigmoid

from prefrank.training.losses.labels import Preferences, number_rows, rank_replies
from prefrank.training.losses.likelihoods import (
    BradleyTerry,
    Davidson,
    Likelihood,
    Ordinal,
    Thurstone,
    start_cut_points,
    start_nu,
)
from prefrank.training.losses.preference_loss import LossSettings, PreferenceLoss, count_correct
from prefrank.types import Preference

ONE, TWO = ("overall",), ("overall", "accuracy")
THETA, NU = 2.0, 0.7
RAO_KUPPER = Ordinal(np.array([[math.log(THETA)]]), ties=True)
LEVELS = Ordinal(np.array([[0.4, 1.1, 2.5]]), ties=True)
NO_TIES = Ordinal(np.array([[0.9, 2.0]]), ties=False)
LIKELIHOODS: dict[str, Likelihood] = {
    "bradley_terry": BradleyTerry(),
    "rao_kupper": RAO_KUPPER,
    "davidson": Davidson(np.array([NU])),
    "ordinal": LEVELS,
    "ordinal without ties": NO_TIES,
    "regression": Thurstone(np.zeros(1), np.ones(1)),
}
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)


def pair(probability: float = 1.0, **fields: Any) -> Preferences:
    return number_rows([[Preference(0, 1, probability, **fields)]], [0], weigh="pair")


def ranked(size: int) -> list[Preference]:
    """All pairs of replies given best first."""
    return [Preference(i, j) for i, j in combinations(range(size), 2)]


def loss_of(likelihood: Likelihood, scores: list[float], preferences: Preferences, **fields: Any) -> float:
    return PreferenceLoss(likelihood, LossSettings(**fields))(torch.tensor(scores), preferences).item()


def bradley_terry(scores: torch.Tensor, preferences: Preferences, **fields: Any) -> torch.Tensor:
    return PreferenceLoss(BradleyTerry(), LossSettings(**fields))(scores, preferences)


def rankings(*levels: list[int], weigh: str = "comparison") -> Preferences:
    """Comparisons with these levels in their rankings, their rows one after the other."""
    groups = [[Preference(i, j) for i, j in combinations(range(len(each)), 2)] for each in levels]
    firsts = np.cumsum([0, *map(len, levels)])[:-1].tolist()
    return number_rows(groups, firsts, weigh=weigh, levels=[np.array(each)[:, None] for each in levels])


def plackett_luce(scores: torch.Tensor, preferences: Preferences, top_k: int | None = None) -> torch.Tensor:
    return PreferenceLoss(BradleyTerry(), LossSettings(top_k=top_k), ranked=True)(scores, preferences)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Bradley-Terry


def test_one_pair_by_hand():
    assert loss_of(BradleyTerry(), [1.0, -0.5], pair()) == pytest.approx(math.log(1 + math.exp(-1.5)))


def test_a_margin_is_taken_off_the_difference():
    assert loss_of(BradleyTerry(), [1.0, -0.5], pair(margin=2.0)) == pytest.approx(math.log(1 + math.exp(0.5)))


def test_the_recipes_margin_counts_once_for_each_level_of_strength():
    scores = [1.0, -0.5]
    assert loss_of(BradleyTerry(), scores, pair(strength=3, margin=0.2), margin=0.6) == pytest.approx(
        loss_of(BradleyTerry(), scores, pair(margin=2.0))
    )
    assert loss_of(BradleyTerry(), scores, pair(), margin=0.6) == loss_of(BradleyTerry(), scores, pair())
    assert loss_of(BradleyTerry(), scores, pair(0.0, strength=1), margin=0.6) == pytest.approx(
        loss_of(BradleyTerry(), scores, pair(0.0, margin=-0.6))
    )


def test_a_soft_label_mixes_both_outcomes():
    expected = 0.8 * math.log(1 + math.exp(-2)) + 0.2 * math.log(1 + math.exp(2))
    assert loss_of(BradleyTerry(), [2.0, 0.0], pair(0.8)) == pytest.approx(expected)


def test_label_smoothing_is_a_chance_of_a_flipped_label():
    for probability, smoothed in ((1.0, 0.8), (0.5, 0.5)):
        assert loss_of(BradleyTerry(), [2.0, 0.0], pair(probability), label_smoothing=0.2) == pytest.approx(
            loss_of(BradleyTerry(), [2.0, 0.0], pair(smoothed))
        )


def test_score_terms_by_hand():
    scores = [3.0, -1.0]
    bare = loss_of(BradleyTerry(), scores, pair(weight=2.0))
    assert loss_of(BradleyTerry(), scores, pair(weight=2.0), score_l2=0.1) == pytest.approx(bare + 0.1 * 2 * 0.5 * 10)
    assert loss_of(BradleyTerry(), scores, pair(weight=2.0), centering=0.1) == pytest.approx(bare + 0.1 * 2 * 4)


def test_groups_match_the_published_open_assistant_rm_loss():
    """RMLoss of Open Assistant: per group the mean over pairs i < j of the ranked replies, then the mean of groups."""
    groups, beta = [torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.3, 0.9])], 0.001
    expected = []
    for group in groups:
        pairs = [(group[i], group[j]) for i, j in combinations(range(len(group)), 2)]
        each = [-logsigmoid(a - b) + beta * 0.5 * (a**2 + b**2) for a, b in pairs]
        expected.append(torch.stack(each).mean())
    preferences = number_rows([ranked(3), ranked(2)], [0, 3])
    ours = bradley_terry(torch.cat(groups), preferences, score_l2=beta) / 2
    assert torch.allclose(ours, torch.stack(expected).mean())


@pytest.mark.parametrize("size", [2, 4, 9])
def test_a_ranked_prompt_matches_the_instructgpt_mean_over_k_choose_2(size):
    scores = torch.randn(size, generator=torch.Generator().manual_seed(size))
    expected = sum(-logsigmoid(scores[i] - scores[j]) for i, j in combinations(range(size), 2)) / math.comb(size, 2)
    assert torch.allclose(bradley_terry(scores, number_rows([ranked(size)], [0])), expected)


# Ties and strengths


@pytest.mark.parametrize("difference", [0.3, -1.7])
def test_rao_kupper_by_hand(difference):
    win = math.exp(difference) / (math.exp(difference) + THETA)
    loss = 1 / (1 + THETA * math.exp(difference))
    for probability, expected in ((1.0, win), (0.5, 1 - win - loss), (0.0, loss)):
        assert loss_of(RAO_KUPPER, [difference, 0.0], pair(probability)) == pytest.approx(-math.log(expected), rel=1e-5)


@pytest.mark.parametrize("difference", [0.3, -1.7])
def test_davidson_by_hand(difference):
    shares = [math.exp(difference), NU * math.exp(difference / 2), 1.0]
    for probability, share in zip((1.0, 0.5, 0.0), shares, strict=True):
        expected = -math.log(share / sum(shares))
        assert loss_of(LIKELIHOODS["davidson"], [difference, 0.0], pair(probability)) == pytest.approx(
            expected, rel=1e-5
        )


def test_levels_of_strength_by_hand():
    difference, cuts = 0.6, [0.4, 1.1, 2.5, math.inf]
    for strength in (1, 2, 3):
        low, high = cuts[strength - 1], cuts[strength]
        better = sigmoid(difference - low) - sigmoid(difference - high)
        worse = sigmoid(-difference - low) - sigmoid(-difference - high)
        assert loss_of(LEVELS, [difference, 0.0], pair(strength=strength)) == pytest.approx(-math.log(better), rel=1e-5)
        assert loss_of(LEVELS, [0.0, difference], pair(strength=strength)) == pytest.approx(-math.log(worse), rel=1e-5)
    tie = sigmoid(0.4 - difference) - sigmoid(-0.4 - difference)
    assert loss_of(LEVELS, [difference, 0.0], pair(0.5, strength=0)) == pytest.approx(-math.log(tie), rel=1e-5)


def test_a_strength_that_nobody_stated_is_any_and_one_beyond_the_last_level_is_the_last():
    difference = 0.6
    assert loss_of(LEVELS, [difference, 0.0], pair()) == pytest.approx(-math.log(sigmoid(difference - 0.4)), rel=1e-5)
    assert loss_of(LEVELS, [difference, 0.0], pair(strength=9)) == loss_of(LEVELS, [difference, 0.0], pair(strength=3))
    assert loss_of(NO_TIES, [difference, 0.0], pair()) == pytest.approx(-math.log(sigmoid(difference)), rel=1e-5)


def test_without_a_tie_in_the_model_a_tie_is_half_a_win_and_half_a_loss():
    win, loss = (loss_of(NO_TIES, [0.6, 0.0], pair(p)) for p in (1.0, 0.0))
    assert loss_of(NO_TIES, [0.6, 0.0], pair(0.5)) == pytest.approx((win + loss) / 2)


def test_a_tie_pulls_unequal_scores_together_and_equal_ones_nowhere():
    for likelihood in LIKELIHOODS.values():
        if not isinstance(likelihood, Thurstone):
            for gap in (0.0, 1.0):
                scores = torch.tensor([gap, -gap], requires_grad=True)
                PreferenceLoss(likelihood)(scores, pair(0.5)).backward()
                assert scores.grad[0] > 0 > scores.grad[1] if gap else scores.grad.tolist() == [0.0, 0.0]


@each_likelihood
def test_win_tie_and_loss_sum_to_one_and_mirror_each_other(likelihood):
    difference = torch.linspace(-30, 30, 121, dtype=torch.float64)
    win, tie, loss = likelihood.probabilities(difference)
    assert torch.allclose(win + tie + loss, torch.ones_like(difference), atol=1e-6)
    assert torch.allclose(win, loss.flip(0))
    assert torch.allclose(tie, tie.flip(0))
    assert (win.diff() > 0).any()
    assert (win.diff() >= 0).all()


@each_likelihood
def test_levels_and_tie_sum_to_one(likelihood):
    difference, levels = torch.tensor([-3.0, 0.0, 0.4, 5.0], dtype=torch.float64), 3
    head = torch.zeros(4, dtype=torch.int64)
    win, tie, loss = likelihood.probabilities(difference)
    if isinstance(likelihood, Ordinal):
        each = [likelihood.outcomes(difference, torch.full_like(head, s), head) for s in range(1, levels + 1)]
        count = likelihood.cut_points().shape[1]
        assert torch.allclose(sum(one.win.exp() for one in each[:count]), win, atol=1e-6)
        assert torch.allclose(sum(one.loss.exp() for one in each[:count]), loss, atol=1e-6)
    assert torch.allclose(1 - win - loss, tie, atol=1e-6)


@each_likelihood
def test_the_loss_of_a_pair_is_minus_the_log_of_its_probability(likelihood):
    difference = 0.8
    win, tie, loss = (probability.item() for probability in likelihood.probabilities(torch.tensor([difference])))
    whole = PreferenceLoss(likelihood)
    scores = torch.tensor([difference, 0.0])
    assert whole.log_loss(scores, pair()).item() == pytest.approx(-math.log(win), rel=1e-5)
    assert whole.log_loss(scores, pair(0.0)).item() == pytest.approx(-math.log(loss), rel=1e-5)
    if tie:
        assert whole.log_loss(scores, pair(0.5)).item() == pytest.approx(-math.log(tie), rel=1e-5)


def test_with_one_level_and_no_ties_the_ordinal_model_is_bradley_terry():
    difference = torch.linspace(-5, 5, 11)
    one_level = Ordinal(np.zeros((1, 0)), ties=False)
    for ours, theirs in zip(one_level.probabilities(difference), BradleyTerry().probabilities(difference), strict=True):
        assert torch.allclose(ours, theirs)


def test_squared_error_implies_thurstones_case_v():
    win, _, _ = LIKELIHOODS["regression"].probabilities(torch.tensor([0.9]))
    assert win.item() == pytest.approx(norm.cdf(0.9 / math.sqrt(2)), rel=1e-5)


def test_parameters_start_where_equal_scores_have_the_labels_shares():
    counts = np.array([[300.0, 500.0, 200.0]])
    zero, head = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    for ties, total in ((True, 1001.5), (False, 701.0)):
        levels = Ordinal(start_cut_points(counts, ties=ties), ties=ties)
        win = [levels.outcomes(zero, torch.tensor([s]), head).win.exp().item() for s in (1, 2)]
        assert [2 * one for one in win] == pytest.approx([500.5 / total, 200.5 / total], rel=1e-5)
    davidson = Davidson(start_nu(counts))
    assert davidson.probabilities(zero)[1].item() == pytest.approx(0.3, rel=2e-3)


def test_cut_points_stay_in_order_whatever_the_optimiser_does_and_a_fixed_one_stays_put():
    likelihood = Ordinal(np.array([[0.4, 1.1, 2.5]]), ties=True)
    optimizer = torch.optim.SGD(likelihood.parameters(), lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        PreferenceLoss(likelihood)(torch.tensor([0.1, 0.0]), pair(strength=2)).backward()
        optimizer.step()
    cuts = likelihood.cut_points()[0]
    assert cuts[0] > 0
    assert (cuts.diff() > 0).all()
    fixed = Ordinal(np.array([[0.4]]), ties=True, learned=False)
    assert [
        parameter.requires_grad
        for parameter in (*fixed.parameters(), *Davidson(np.ones(1), learned=False).parameters())
    ] == [
        False,
        False,
    ]


def test_the_tie_parameter_is_learned_from_ties():
    """At equal scores the likeliest theta makes ties as likely as they are: here one in two."""
    likelihood = Ordinal(np.array([[0.1]]), ties=True)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.2)
    labels = number_rows([[Preference(0, 1), Preference(0, 1, 0.5)]], [0])
    for _ in range(80):
        optimizer.zero_grad()
        PreferenceLoss(likelihood)(torch.zeros(2), labels).backward()
        optimizer.step()
    assert likelihood.probabilities(torch.zeros(1))[1].item() == pytest.approx(0.5, abs=1e-2)


def test_cut_points_are_recovered_from_labels_drawn_from_them():
    draw, count = np.random.default_rng(0), 2000
    difference = torch.tensor(draw.normal(0, 1.5, count), dtype=torch.float32)
    # a logistic variable around the difference falls between two cut-points, or beyond the last
    fallen = difference.numpy() + draw.logistic(size=count)
    strengths = np.searchsorted([0.4, 1.1, 2.5], np.abs(fallen))
    groups = [
        [Preference(int(x < 0), int(x >= 0), 1.0 if s else 0.5, strength=int(s))]
        for x, s in zip(fallen, strengths, strict=True)
    ]
    labels = number_rows(groups, range(0, 2 * count, 2))
    likelihood = Ordinal(start_cut_points(np.bincount(strengths)[None].astype(float), ties=True), ties=True)
    scores = torch.stack([difference, torch.zeros(count)], 1).flatten()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        (PreferenceLoss(likelihood)(scores, labels) / count).backward()
        optimizer.step()
    assert likelihood.cut_points()[0].tolist() == pytest.approx([0.4, 1.1, 2.5], abs=0.15)


# Rankings


def test_plackett_luce_by_hand():
    a, b, c = scores = torch.tensor([0.2, 1.5, -0.4])
    first = -(b - torch.logsumexp(scores, 0))
    second = -(a - torch.logsumexp(torch.stack([a, c]), 0))
    assert plackett_luce(scores, rankings([1, 0, 2])).item() == pytest.approx((first + second).item() / 2)
    assert plackett_luce(scores, rankings([1, 0, 2]), top_k=1).item() == pytest.approx(first.item())
    assert plackett_luce(scores, rankings([1, 0, 2]), top_k=7) == plackett_luce(scores, rankings([1, 0, 2]))


def test_the_probabilities_of_all_rankings_sum_to_one():
    scores, total = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0.0
    for order in permutations(range(4)):
        total += math.exp(-3 * plackett_luce(scores, rankings(list(order))).item())
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("levels", [[0, 1], [1, 0], [0, 0]])
def test_a_ranking_of_two_is_bradley_terry_ties_included(levels):
    scores = torch.tensor([0.7, -0.2])
    label = {0: pair(), 1: pair(0.0)}[levels[0]] if levels != [0, 0] else pair(0.5)
    assert plackett_luce(scores, rankings(levels)).item() == pytest.approx(bradley_terry(scores, label).item())


def test_ties_in_a_ranking_are_no_less_than_the_mean_over_their_orders_and_equal_it_at_equal_scores():
    def mean_over_orders(scores: torch.Tensor) -> float:
        orders = [[0, *(1 + place for place in order), 4] for order in permutations(range(3))]
        return sum(plackett_luce(scores, rankings(order)).item() for order in orders) / len(orders)

    tied = rankings([0, 1, 1, 1, 2])
    equal, unequal = torch.tensor([2.0, 0.5, 0.5, 0.5, -1.0]), torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    assert plackett_luce(equal, tied).item() == pytest.approx(mean_over_orders(equal))
    assert mean_over_orders(unequal) < plackett_luce(unequal, tied).item() < mean_over_orders(unequal) + 0.1


def test_ties_by_efrons_rule_by_hand():
    a, b, c = (math.exp(x) for x in (0.3, 0.9, -0.5))
    stages = [math.log(a + b + c), math.log((a + b) / 2 + c)]
    expected = (sum(stages) - (0.3 + 0.9)) / 2
    assert plackett_luce(torch.tensor([0.3, 0.9, -0.5]), rankings([0, 0, 1])).item() == pytest.approx(expected)


def test_below_the_first_k_places_the_order_says_nothing():
    scores = torch.randn(5, generator=torch.Generator().manual_seed(1))
    one, other = rankings([0, 1, 2, 3, 4]), rankings([0, 1, 4, 2, 3])
    assert plackett_luce(scores, one, top_k=2) == plackett_luce(scores, other, top_k=2)
    assert plackett_luce(scores, one, top_k=3) != plackett_luce(scores, other, top_k=3)


def test_replies_without_a_place_take_no_part():
    scores = torch.tensor([0.2, 1.5, -0.4])
    expected = -logsigmoid(scores[1] - scores[2])
    assert torch.allclose(plackett_luce(scores, rankings([-1, 0, 1])), expected)
    assert plackett_luce(scores, rankings([-1, 0, -1])).item() == 0.0


@pytest.mark.parametrize("weigh", ["comparison", "pair"])
def test_a_ranking_counts_as_much_as_its_preferences_together(weigh):
    scores = torch.randn(5, generator=torch.Generator().manual_seed(2))
    both = plackett_luce(scores, rankings([0, 1, 2], [0, 1], weigh=weigh)).item()
    parts = [plackett_luce(part, rankings(list(range(len(part))))).item() for part in (scores[:3], scores[3:])]
    assert both == pytest.approx((3 if weigh == "pair" else 1) * parts[0] + parts[1], rel=1e-5)


@pytest.mark.parametrize(
    ("preferences", "places", "levels"),
    [
        (ranked(3), 9, (0, 1, 2)),
        ([Preference(2, 0), Preference(0, 1)], 9, (1, 2, 0)),  # 2 > 1 follows
        ([Preference(0, 1, 0.0)], 9, (1, 0)),
        ([Preference(0, 1, 0.5), Preference(0, 2), Preference(1, 2)], 9, (0, 0, 1)),
        ([Preference(0, 1, 0.5), Preference(1, 2)], 9, (0, 0, 1)),
        ([Preference(0, 1), Preference(0, 1), Preference(1, 0)], 9, (0, 1)),  # two votes to one
        ([Preference(0, 1, weight=0.3), *[Preference(1, 0, weight=0.1)] * 3], 9, (0, 0)),
        ([Preference(0, 2)], 9, (0, -1, 1)),  # nobody judged 1
        ([Preference(0, 1), Preference(0, 2)], 1, (0, 1, 1)),
        ([Preference(0, 1), Preference(0, 2)], 2, None),
        ([Preference(0, 1), Preference(1, 2), Preference(2, 0)], 1, None),
        ([Preference(0, 1, 0.5), Preference(1, 2, 0.5), Preference(0, 2)], 9, None),
        ([Preference(0, 1), Preference(2, 3)], 1, None),
        ([], 9, (-1, -1)),
    ],
)  # fmt: skip
def test_the_order_of_replies_follows_from_the_preferences_or_there_is_none(preferences, places, levels):
    size = len(levels) if levels else 1 + max(max(p.winner, p.loser) for p in preferences)
    assert rank_replies(preferences, size, places=places) == levels


# Ratings and heads


def test_squared_error_by_hand_with_missing_ratings_left_out():
    likelihood = Thurstone(np.array([3.0, 1.0]), np.array([2.0, 1.0]))
    ratings = [np.array([[5.0, np.nan], [1.0, 2.0]])]
    labels = number_rows([[Preference(0, 1)]], [0], heads=TWO, ratings=ratings)
    scores = torch.tensor([[0.5, 9.0], [0.0, 0.0]])
    expected = (0.5 * (0.5 - 1.0) ** 2 + 0.5 * (0.0 + 1.0) ** 2 + 0.5 * (0.0 - 1.0) ** 2) / 3
    assert PreferenceLoss(likelihood)(scores, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "regression"])
def test_each_preference_speaks_of_its_own_heads_score(name):
    likelihood = LIKELIHOODS[name]
    both = number_rows([[Preference(0, 1), Preference(1, 0, head="accuracy")]], [0], heads=TWO, weigh="pair")
    two = replace_heads(likelihood)
    scores = torch.tensor([[1.0, 0.2], [-0.5, 0.9]])
    expected = loss_of(likelihood, [1.0, -0.5], pair()) + loss_of(likelihood, [0.9, 0.2], pair())
    assert PreferenceLoss(two)(scores, both).item() == pytest.approx(expected, rel=1e-5)


def replace_heads(likelihood: Likelihood) -> Likelihood:
    """The same likelihood for two heads."""
    if isinstance(likelihood, Ordinal):
        cuts = likelihood.cut_points().detach().numpy().repeat(2, 0)
        return Ordinal(cuts if likelihood.ties else cuts[:, 1:], ties=likelihood.ties)
    return Davidson(np.array([NU, NU])) if isinstance(likelihood, Davidson) else likelihood


def test_rankings_of_two_heads_count_as_their_preferences_do():
    group = [Preference(0, 1), Preference(1, 0, head="accuracy"), Preference(0, 1, head="accuracy", weight=2.0)]
    levels = [np.array([[0, 1], [1, 0]])]
    labels = number_rows([group], [0], heads=TWO, levels=levels)
    scores = torch.tensor([[1.0, 0.2], [-0.5, 0.9]])
    expected = (-logsigmoid(torch.tensor(1.5)) - 3 * logsigmoid(torch.tensor(0.7))) / 4
    assert torch.allclose(plackett_luce(scores, labels), expected)


# All of them


def every_loss() -> dict[str, tuple[PreferenceLoss, Preferences, int]]:
    """Name -> loss with all its terms, labels of every kind over five rows, heads."""
    group = [
        Preference(0, 1, 0.7, 2.0, 0.3, strength=2),
        Preference(0, 2, strength=1),
        Preference(1, 2, 0.5, strength=0),
        Preference(2, 0, head="accuracy"),
    ]
    levels = [np.array([[0, 1], [1, -1], [1, 0]], np.int32), np.array([[1, -1], [0, -1]], np.int32)]
    ratings = [np.array([[3.0, 1.0], [np.nan, 2.0], [1.0, np.nan]]), np.array([[2.0, np.nan], [np.nan, np.nan]])]
    labels = number_rows(
        [group, [Preference(1, 0)]], [0, 3], heads=TWO, weights=[1.0, 0.5], levels=levels, ratings=ratings
    )
    terms = LossSettings(label_smoothing=0.1, margin=0.2, score_l2=0.3, centering=0.2)
    made = {name: PreferenceLoss(replace_heads(likelihood), terms) for name, likelihood in LIKELIHOODS.items()}
    made["regression"] = PreferenceLoss(Thurstone(np.array([1.0, 2.0]), np.array([2.0, 0.5])), terms)
    made["plackett_luce"] = PreferenceLoss(BradleyTerry(), terms, ranked=True)
    made["top-k"] = PreferenceLoss(BradleyTerry(), replace(terms, top_k=1), ranked=True)
    return {name: (loss, labels, 2) for name, loss in made.items()}


each_loss = pytest.mark.parametrize("name", every_loss())


@each_loss
def test_gradients_equal_finite_differences(name):
    loss, labels, heads = every_loss()[name]
    loss = loss.double()
    scores = torch.randn(5, heads, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    own = list(loss.parameters())
    assert torch.autograd.gradcheck(lambda values, *own: loss(values, labels), [scores, *own])


@each_loss
def test_only_terms_that_hold_scores_to_a_place_notice_a_shift(name):
    loss, labels, heads = every_loss()[name]
    bare = PreferenceLoss(loss.likelihood, replace(loss.settings, score_l2=0.0, centering=0.0), ranked=loss.ranked)
    scores = torch.randn(5, heads, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = bare(scores + torch.tensor([7.0, -3.0]), labels)
    assert torch.allclose(bare(scores, labels), shifted, rtol=1e-6) == (name != "regression")


@each_loss
def test_the_order_of_comparisons_changes_nothing(name):
    loss, _, _ = every_loss()[name]
    groups = [[Preference(0, 1, strength=1)], [Preference(1, 0, 0.5), Preference(0, 2, strength=2)]]
    levels = [np.array([[0, -1], [1, -1]]), np.array([[0, -1], [0, -1], [1, -1]])]
    ratings = [np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[2.0, np.nan], [3.0, 1.0], [1.0, 1.0]])]
    there = number_rows(groups, [0, 2], heads=TWO, levels=levels, ratings=ratings)
    back = number_rows(groups[::-1], [0, 3], heads=TWO, levels=levels[::-1], ratings=ratings[::-1])
    scores = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loss(scores, there), loss(torch.cat([scores[2:], scores[:2]]), back))


@each_loss
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_huge_scores_overflow_neither_loss_nor_gradient(name, scale):
    loss, labels, heads = every_loss()[name]
    scores = (torch.tensor([1.0, -1.0, 0.5, 1.0, -1.0])[:, None] * scale).repeat(1, heads).requires_grad_()
    value = loss(scores, labels)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(parameter.grad).all() for parameter in (scores, *loss.parameters()))


@each_loss
def test_without_labels_loss_and_gradient_are_zero(name):
    loss, _, heads = every_loss()[name]
    scores = torch.ones(2, heads, requires_grad=True)
    value = loss(scores, number_rows([], [], heads=TWO))
    value.backward()
    assert value.item() == 0.0
    assert scores.grad.tolist() == [[0.0] * heads] * 2


@each_loss
def test_its_own_parameters_go_to_json_and_back(name):
    loss, labels, heads = every_loss()[name]
    for parameter in loss.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    other = every_loss()[name][0]
    other.load_state_dict(loss.state_dict())
    scores = torch.randn(5, heads)
    assert torch.equal(loss(scores, labels), other(scores, labels))
    assert other.record() == loss.record()


scores_strategy = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=2)


@settings(deadline=None, max_examples=15)
@given(scores_strategy, st.floats(0, 1, width=32), st.floats(-2, 2, width=32), st.floats(0, 0.5, width=32))
@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "regression"])
def test_swapping_winner_and_loser_of_the_opposite_label_changes_nothing(name, scores, probability, margin, smoothing):
    loss = PreferenceLoss(LIKELIHOODS[name], LossSettings(label_smoothing=smoothing))
    values = torch.tensor(scores, dtype=torch.float64)
    one = number_rows([[Preference(0, 1, probability, margin=margin)]], [0])
    other = number_rows([[Preference(1, 0, 1.0 - probability, margin=-margin)]], [0])
    assert torch.allclose(loss(values, one), loss(values, other), rtol=1e-5, atol=1e-5)


# Labels as numbers


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
