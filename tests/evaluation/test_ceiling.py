import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from prefrank.evaluation import Bootstrap, sample_of
from prefrank.evaluation.ceiling import noise_ceiling, vote_agreement
from prefrank.evaluation.metrics import measure
from prefrank.evaluation.samples import Sample
from prefrank.types import Comparison, Preference
from tests.evaluation.making import comparison, preference, scored

FAST = Bootstrap(resamples=50)


def voted(*items: list[Preference], replies: int = 2) -> Sample:
    texts = [f"reply {i}" for i in range(replies)]
    comparisons: list[Comparison] = [
        comparison(texts, votes, prompt=f"question {i}", id=str(i)) for i, votes in enumerate(items)
    ]
    return sample_of(comparisons, [scored(range(replies, 0, -1))] * len(items))


def test_the_ceiling_is_the_share_of_the_larger_side_by_hand() -> None:
    for_first, for_second, tied = preference(0, 1), preference(1, 0), preference(0, 1, 0.5)
    # 3 of 4 for the first; a tie is half a vote for each side, so 1.5 of 2 for the second
    sample = voted([for_first, for_first, for_second, for_first], [for_second, tied])
    ceiling = noise_ceiling(sample, FAST)
    assert ceiling.value == pytest.approx((0.75 + 0.75) / 2)
    assert (ceiling.n, ceiling.unit, ceiling.prompts) == (6, "votes", 2)


def test_a_vote_may_name_its_pair_either_way_round() -> None:
    assert noise_ceiling(voted([preference(0, 1), preference(1, 0, 0.0), preference(1, 0)]), FAST).value == (
        pytest.approx(2 / 3)
    )


def test_pairs_are_averaged_inside_items_by_their_votes() -> None:
    split = [preference(0, 1), preference(1, 0)]
    agreed = [preference(0, 2), preference(0, 2), preference(2, 0), preference(0, 2)]
    once = [preference(1, 2)]
    assert noise_ceiling(voted(split + agreed + once, replies=3), FAST).value == pytest.approx((2 * 0.5 + 4 * 0.75) / 6)


def test_no_pair_with_two_votes_has_no_ceiling() -> None:
    for sample in (voted([preference(0, 1)]), voted([preference(0, 1), preference(1, 2)], replies=3), voted()):
        assert noise_ceiling(sample, FAST).value is vote_agreement(sample, FAST).value is None


def test_one_voter_against_the_others_by_hand() -> None:
    for_first, for_second, tied = preference(0, 1), preference(1, 0), preference(0, 1, 0.5)
    # 2 : 1: either of the two meets a tie of the others (1/2), the third meets two against it (0)
    assert vote_agreement(voted([for_first, for_first, for_second]), FAST).value == pytest.approx(1 / 3)
    assert vote_agreement(voted([for_first, for_first]), FAST).value == 1.0
    assert vote_agreement(voted([for_first, for_second]), FAST).value == 0.0
    assert vote_agreement(voted([for_first, tied]), FAST).value == 0.5


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=5), min_size=1, max_size=6))
def test_no_scorer_is_above_the_ceiling_and_the_majoritys_is_at_it(votes: list[list[bool]]) -> None:
    sample = voted(*[[preference(0, 1) if vote else preference(1, 0) for vote in each] for each in votes])
    ceiling = noise_ceiling(sample, FAST).value
    majority = [scored([np.mean(each), 1 - np.mean(each)]) for each in votes]
    best = measure(Sample(sample.facts, tuple(map(tuple, majority))), FAST).accuracy.value
    assert best == pytest.approx(ceiling)
    assert measure(sample, FAST).accuracy.value <= ceiling + 1e-12
    assert vote_agreement(sample, FAST).value <= ceiling + 1e-12


def test_few_votes_set_the_ceiling_too_high_and_the_agreement_does_not() -> None:
    random = np.random.default_rng(0)
    coins = voted(
        *[[preference(0, 1) if first else preference(1, 0) for first in random.random(2) < 0.5] for _ in range(400)]
    )
    assert noise_ceiling(coins, FAST).value == pytest.approx(0.75, abs=0.04)
    assert vote_agreement(coins, FAST).value == pytest.approx(0.5, abs=0.08)
