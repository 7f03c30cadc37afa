import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from prefrank.errors import BadInput
from prefrank.evaluation.comparing import Difference, compare, groups, mcnemar, verdict
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.figures import Figure, Part, mean_figure
from prefrank.stats.significance import holm

FAST = Bootstrap(resamples=500)
MANY = Bootstrap(resamples=20_000)


def shares(values: Sequence[float] | np.ndarray, prompts: Sequence[int] | None = None) -> Figure:
    places = np.arange(len(values)) if prompts is None else np.array(prompts, np.int64)
    return mean_figure(np.array(values, np.float64), places, n=len(values), unit="pairs")


def compared(first: Figure, second: Figure, bootstrap: Bootstrap = FAST) -> Difference:
    return compare({"accuracy": first}, {"accuracy": second}, bootstrap)["accuracy"]


def coin(seed: int, n: int, chance: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < chance).astype(np.float64)


def test_a_scorer_does_not_differ_from_itself() -> None:
    figure = shares(coin(0, 40, 0.7))
    same = compared(figure, figure)
    assert (same.difference.value, same.p, same.p_adjusted) == (0.0, 1.0, 1.0)
    assert same.difference.low < 0 < same.difference.high
    assert same.detectable is None
    assert same.verdict == "cannot be told apart"


@hypothesis_settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), n=st.integers(2, 40))
def test_exchanging_the_scorers_turns_the_difference_and_keeps_p(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random(n), random.random(n)
    prompts = random.integers(0, n, n).tolist()
    there, back = compared(shares(first, prompts), shares(second, prompts)), compared(
        shares(second, prompts), shares(first, prompts)
    )  # fmt: skip
    assert there.difference.value == pytest.approx(-back.difference.value, abs=1e-12)
    assert (there.p, there.detectable) == pytest.approx((back.p, back.detectable))
    assert {there.verdict, back.verdict} in ({"better", "worse"}, {"cannot be told apart"})


def test_swaps_of_few_prompts_are_counted_by_hand() -> None:
    # three prompts, all for the first scorer: of 8 swaps two are as far out
    assert compared(shares([1, 1, 1]), shares([0, 0, 0])).p == pytest.approx(2 / 8)
    # a prompt on which they agree changes nothing, and two pairs of a prompt are swapped together
    assert compared(shares([1, 1, 1, 0]), shares([0, 0, 0, 0])).p == pytest.approx(2 / 8)
    assert compared(shares([1, 1, 1, 1], [0, 0, 1, 1]), shares([0, 0, 0, 0], [0, 0, 1, 1])).p == pytest.approx(2 / 4)


def test_p_of_few_prompts_is_scipys_and_exact() -> None:
    random = np.random.default_rng(3)
    first, second = random.random(10), random.random(10) - 0.2
    reference = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert compared(shares(first), shares(second)).p == pytest.approx(reference.pvalue, abs=1e-12)


def test_p_of_many_prompts_is_scipys_but_for_the_luck_of_the_draw() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(60), random.random(60) - 0.07
    reference = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    )
    ours = compared(shares(first), shares(second), MANY).p
    assert 0.03 < ours < 0.5
    assert ours == pytest.approx(reference.pvalue, abs=4 * math.sqrt(2 * ours * (1 - ours) / 20_000))


def test_p_of_plain_pairs_is_mcnemars() -> None:
    first, second = coin(0, 300, 0.75), coin(1, 300, 0.66)
    ours = compared(shares(first), shares(second), MANY)
    exact = mcnemar(first > 0, second > 0, np.arange(300)).exact
    assert ours.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))


def test_p_is_never_zero() -> None:
    far = compared(shares(np.ones(50)), shares(np.zeros(50)))
    assert far.p == 1 / 501
    assert far.verdict == "better"


def test_the_detectable_difference_is_2_8_paired_standard_errors() -> None:
    first, second = coin(0, 200, 0.8), coin(5, 200, 0.7)
    result = compared(shares(first), shares(second))
    gap = first - second
    assert result.detectable == pytest.approx(2.8016 * gap.std(ddof=1) / math.sqrt(200), rel=1e-4)
    # as the rule of thumb 2.8 sqrt(b + c) / N where the two are alike
    assert result.detectable == pytest.approx(2.8 * math.sqrt(np.abs(gap).sum()) / 200, rel=0.05)


def test_nothing_is_detectable_by_prompts_without_spread() -> None:
    weights = np.linspace(0.1, 0.7, 7)
    first, second = (mean_figure(np.full(7, v), np.arange(7), weights, n=7, unit="items") for v in (0.3, 0.1))
    result = compared(first, second)  # 0.2 but for rounding
    assert result.difference.value == pytest.approx(0.2)
    assert result.detectable is None


def test_weighted_sections_are_swapped_by_what_they_add() -> None:
    parts = [(np.array([1.0, 0.0]), np.array([0, 1]), 0.9), (np.array([1.0, 1.0]), np.array([2, 3]), 0.1)]
    first = Figure(tuple(Part(v, p, None, c) for v, p, c in parts), 4, "items")
    second = Figure(tuple(Part(1 - v, p, None, c) for v, p, c in parts), 4, "items")
    result = compared(first, second)
    # prompts add .45, -.45, .05, .05: the sum is at least .1 either way in 12 of the 16 swaps
    assert result.difference.value == pytest.approx(0.1)
    assert result.p == pytest.approx(12 / 16)


def test_slices_are_adjusted_together_and_the_headline_is_not() -> None:
    names = ["headline", "one", "two", "three"]
    first = {name: shares(coin(i, 60, 0.8)) for i, name in enumerate(names)}
    second = {name: shares(coin(i + 10, 60, 0.6)) for i, name in enumerate(names)}
    result = compare(first, second, FAST)
    assert result["headline"].p_adjusted == result["headline"].p
    raw = [result[name].p for name in names[1:]]
    assert [result[name].p_adjusted for name in names[1:]] == holm(raw)
    alone = compare(first, second, FAST, slices=["two"])
    assert [alone[name].p_adjusted for name in names] == [result[name].p for name in names]


def test_a_failed_score_leaves_no_difference_and_no_verdict() -> None:
    result = compare(
        {"accuracy": shares([1, 0, 1]), "log loss": shares([1, math.nan, 1])},
        {"accuracy": shares([0, 0, 1]), "log loss": shares([1, 1, 1])},
        FAST,
    )
    assert result["accuracy"].p == 1.0
    lost = result["log loss"]
    assert (lost.difference.value, lost.p, lost.p_adjusted, lost.detectable, lost.verdict) == (None,) * 5
    plain = json.loads(json.dumps(lost.to_json(), allow_nan=False))
    assert set(plain) == {"difference", "p", "p_adjusted", "detectable", "verdict"}
    assert plain["difference"]["n"] == 3


def test_scorers_of_other_items_or_figures_are_refused() -> None:
    with pytest.raises(BadInput, match="different figures \\(recall\\)"):
        compare({"accuracy": shares([1])}, {"accuracy": shares([1]), "recall": shares([1])}, FAST)
    with pytest.raises(BadInput, match="not of the same items"):
        compared(shares([1, 0]), shares([1, 0, 1]))


@pytest.mark.parametrize(
    ("difference", "p", "wanted"),
    [(0.1, 0.05, "better"), (-0.1, 0.01, "worse"), (0.1, 0.051, "cannot be told apart"), (None, None, None)],
)
def test_the_verdict_is_by_p_at_5_percent(difference: float | None, p: float | None, wanted: str | None) -> None:
    assert verdict(difference, p) == wanted


# McNemar


def table_of(b: int, c: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    right = np.repeat([True, False, True, False], [b, c, both, neither])
    return right, np.repeat([False, True, True, False], [b, c, both, neither])


@pytest.mark.parametrize(("b", "c"), [(0, 1), (1, 0), (3, 9), (7, 7), (20, 8), (150, 110), (0, 40)])
def test_mcnemar_is_statsmodels_and_its_mid_p_by_definition(b: int, c: int) -> None:
    first, second = table_of(b, c, 5, 4)
    result = mcnemar(first, second, np.arange(b + c + 9))
    assert (result.n, result.b, result.c, result.discordant, result.clustered) == (b + c + 9, b, c, b + c, False)
    assert result.exact == pytest.approx(reference_mcnemar([[5, b], [c, 4]], exact=True).pvalue)
    binomial = stats.binom(b + c, 0.5)
    assert result.mid_p == pytest.approx(2 * binomial.cdf(min(b, c)) - binomial.pmf(min(b, c)))


def test_mcnemar_without_a_discordant_pair_tells_nothing() -> None:
    result = mcnemar(np.ones(4, bool), np.ones(4, bool), np.array([0, 0, 1, 2]))
    assert (result.discordant, result.exact, result.mid_p) == (0, 1.0, 1.0)
    assert result.clustered
    assert result.to_json() == {
        "n": 4, "b": 0, "c": 0, "exact": 1.0, "mid_p": 1.0, "clustered": True, "discordant": 0,
    }  # fmt: skip


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    first, second = table_of(3000, 2600, 0, 0)
    result = mcnemar(first, second, np.arange(5600))
    assert result.exact == pytest.approx(float(stats.binomtest(2600, 5600).pvalue))


# Groups


def test_scorers_are_grouped_by_what_can_be_told_apart() -> None:
    chances = {"good": 0.9, "as good": 0.895, "coin": 0.5}
    luck = np.random.default_rng(0).permutation(300) / 300
    figures = {name: shares((luck < chance).astype(float)) for name, chance in reversed(chances.items())}
    result = groups(figures, FAST)
    assert result.letters == {"good": "a", "as good": "a", "coin": "b"}
    assert list(result.letters) == list(chances)
    assert result.p_adjusted["good", "as good"] > 0.05 >= result.p_adjusted["as good", "coin"]
    raw = [compared(figures[a], figures[b]).p for a, b in combinations(chances, 2)]
    assert list(result.p_adjusted.values()) == pytest.approx(holm(raw))
    pairs = result.to_json()["pairs"]
    assert pairs[0] == {"a": "good", "b": "as good", "p_adjusted": result.p_adjusted["good", "as good"]}


def test_a_scorer_without_a_value_is_in_no_group() -> None:
    figure = shares([1, 0, 1])
    result = groups(
        {"fails": replace(figure, parts=(replace(figure.parts[0], values=np.full(3, np.nan)),)), "runs": figure}, FAST
    )
    assert result.letters == {"runs": "a"}
    assert result.p_adjusted == {}
