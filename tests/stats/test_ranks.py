"""Ranks with weights and equals, held against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from prefrank.stats.ranks import above, auroc, below, dense, mid_ranks, spearman_in_groups


def test_half_ranks_are_scipys() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    place = np.unique(values, return_inverse=True)[1]
    ranks = below(np.bincount(place))[place]
    assert mid_ranks(values).tolist() == ranks.tolist()
    assert ranks + 0.5 == pytest.approx(stats.rankdata(values))
    assert ranks + above(np.bincount(place))[place] == pytest.approx(np.full(5, 5.0))


def test_places_that_are_left_out_close_up() -> None:
    assert dense(np.array([7, 2, 7, 4])).tolist() == [2, 0, 2, 1]


def test_spearman_in_groups_is_scipys_in_each() -> None:
    random, group = np.random.default_rng(0), np.repeat([0, 1, 2, 3], 8)
    x, y = random.integers(0, 5, 32).astype(float), random.normal(size=32)
    x[group == 2], y[group == 3] = 1.0, 1.0
    result = spearman_in_groups(x, y, group)
    for number in (0, 1):
        assert result[number] == pytest.approx(stats.spearmanr(x[group == number], y[group == number]).statistic)
    assert result[2] == 0.0
    assert np.isnan(result[3])


def test_auroc_is_sklearns_and_its_mean_is_the_value() -> None:
    random = np.random.default_rng(1)
    right, score, weight = (random.random(100) < 0.6).astype(float), random.integers(0, 20, 100), random.random(100)
    place = np.unique(score, return_inverse=True)[1]
    values = auroc(right, weight, place)
    assert np.average(values, weights=weight) == pytest.approx(roc_auc_score(right, score, sample_weight=weight))


def test_auroc_of_nothing_wrong_is_none() -> None:
    assert auroc(np.ones(3), np.ones(3), np.array([0, 1, 2])) is None
