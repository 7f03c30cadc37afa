import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from prefrank.errors import BadInput
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure, Part, mean_figure, minus
from prefrank.stats.intervals import wilson

FAST = Bootstrap(resamples=400)
MANY = Bootstrap(resamples=20_000)


def estimated(figure: Figure, bootstrap: Bootstrap = FAST, strata: Sequence[int] | None = None) -> Estimate:
    of_prompt = None if strata is None else np.array(strata, np.int64)
    return estimate_all({"figure": figure}, bootstrap, strata=of_prompt)["figure"]


def shares(values: Sequence[float], prompts: Sequence[int] | None = None) -> Figure:
    """A mean of values between 0 and 1, each of its own prompt if no prompts are given."""
    places = np.arange(len(values)) if prompts is None else np.array(prompts, np.int64)
    return mean_figure(np.array(values, np.float64), places, n=len(values), unit="pairs")


def free(values: np.ndarray, prompts: Sequence[int] | None = None, weights: np.ndarray | None = None) -> Figure:
    """A mean without bounds."""
    places = np.arange(len(values)) if prompts is None else np.array(prompts, np.int64)
    return mean_figure(values, places, weights, n=len(values), unit="pairs", bounds=None)


def interval(estimate: Estimate) -> tuple[float | None, float | None]:
    return estimate.low, estimate.high


def sections(*groups: Sequence[float], coefficients: Sequence[float] | None = None, start: int = 0) -> Figure:
    """A sum of means over groups of different prompts."""
    first = np.cumsum([start, *map(len, groups)])
    each = coefficients or [1 / len(groups)] * len(groups)
    parts = tuple(
        Part(np.array(values, np.float64), np.arange(len(values)) + begin, None, coefficient)
        for values, begin, coefficient in zip(groups, first[:-1], each, strict=True)
    )
    return Figure(parts, sum(map(len, groups)), "items")


def of_groups(*groups: Sequence[float]) -> list[int]:
    return np.repeat(np.arange(len(groups)), list(map(len, groups))).tolist()


# Wilson


def test_one_plain_item_for_each_prompt_gets_wilson_whatever_the_weights_scale() -> None:
    result = estimated(shares([1, 1, 0.5, 0, 1]))
    assert result.value == 0.7
    assert interval(result) == wilson(3.5, 5)
    assert (result.n, result.unit, result.prompts) == (5, "pairs", 5)
    heavy = mean_figure(np.array([1, 1, 0.5, 0, 1]), np.arange(5), np.full(5, 7.0), n=5, unit="pairs")
    assert estimated(heavy) == result


def test_weights_or_several_items_of_a_prompt_are_not_for_wilson() -> None:
    values, places = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), np.arange(6)
    weighted = estimated(mean_figure(values, places, np.array([5.0, 1, 1, 1, 1, 1]), n=6, unit="pairs"))
    assert interval(weighted) != wilson(weighted.value * 6, 6)
    twice = estimated(shares([1, 0, 1, 1] * 10, [i // 2 for i in range(40)]))
    assert interval(twice) != wilson(15.0, 20)


# Nothing, one, and all alike


def test_nothing_measured_gives_no_value() -> None:
    result = estimated(shares([]))
    assert result == Estimate(None, None, None, 0, "pairs", 0)
    assert str(result) == "-"
    assert estimated(Figure((Part(np.zeros(0), np.zeros(0, np.int64)),), 0, "votes")).value is None


def test_a_part_without_items_leaves_no_value() -> None:
    assert estimated(sections([1.0, 0.0], [])) == Estimate(None, None, None, 2, "items", 2)


def test_a_value_that_is_not_a_number_leaves_no_value_but_its_n() -> None:
    assert estimated(shares([1, math.nan, 0])) == Estimate(None, None, None, 3, "pairs", 3)
    assert estimated(shares([1, math.inf, 0])).value is None


def test_one_prompt_gives_a_mean_but_no_interval_if_there_are_no_bounds() -> None:
    result = estimated(free(np.array([1.5, 2.5]), [0, 0]))
    assert (result.value, result.low, result.high, result.prompts) == (2.0, None, None, 1)
    assert str(result) == "2.000"
    apart = Figure((Part(np.arange(9.0), np.arange(9)), Part(np.ones(1), np.array([9]))), 10, "pairs", None)
    assert (estimated(apart).value, estimated(apart).low) == (5.0, None)


def test_all_right_is_not_certain_and_repeating_a_prompt_adds_nothing() -> None:
    four = estimated(shares([1, 1, 1, 1]))
    repeated = estimated(shares([1.0] * 8, [0, 0, 1, 1, 2, 2, 3, 3]))
    assert interval(four) == wilson(4.0, 4)
    assert interval(repeated) == pytest.approx(wilson(4.0, 4))
    assert (repeated.n, repeated.prompts) == (8, 4)


def test_bounds_other_than_0_and_1_are_mapped_back() -> None:
    tau = estimated(mean_figure(np.full(6, -1.0), np.arange(6), n=6, unit="comparisons", bounds=(-1.0, 1.0)))
    assert tau.value == tau.low == -1.0
    assert tau.high == pytest.approx(2 * wilson(0.0, 6)[1] - 1)
    wide = estimated(mean_figure(np.full(6, 1.0), np.arange(6), n=6, unit="items", bounds=(-1.0, 4.0)))
    assert interval(wide) == pytest.approx((1 - 2 * wilson(0.0, 6)[1], 1 + 3 * wilson(0.0, 6)[1]))


def test_prompts_that_agree_in_the_middle_may_depart_either_way() -> None:
    reach = wilson(0.0, 10)[1]  # the share of prompts that may depart, each at most to the bounds
    middle = estimated(shares([0.25] * 20, list(range(10)) * 2))
    assert interval(middle) == pytest.approx((0.25 - 0.25 * reach, 0.25 + 0.75 * reach))
    same = shares([1, 0] * 5)
    alike = estimated(minus(same, same))
    assert (alike.value, *interval(alike)) == pytest.approx((0.0, -reach, reach))


def test_sections_that_are_all_right_are_combined_in_squares() -> None:
    groups = [1.0] * 10, [1.0] * 40
    result = estimated(sections(*groups, coefficients=[0.25, 0.75]), strata=of_groups(*groups))
    misses = 0.25 * wilson(0.0, 10)[1], 0.75 * wilson(0.0, 40)[1]
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(1 - math.hypot(*misses))


def test_cells_of_the_same_prompts_that_are_all_right_are_no_surer_than_one() -> None:
    values, prompts = np.ones(12), np.arange(12)
    cells = Figure(tuple(Part(values, prompts, None, 1 / 3) for _ in range(3)), 36, "items")
    assert interval(estimated(cells)) == pytest.approx(wilson(12.0, 12))


def test_a_section_that_is_all_wrong_widens_the_sum_upwards_alone() -> None:
    mixed, wrong = [1.0, 0.0, 1.0, 1.0] * 5, [0.0] * 20
    half = estimated(sections(mixed, wrong), strata=of_groups(mixed, wrong))
    alone = estimated(Figure((replace(sections(mixed).parts[0], coefficient=0.5),), 20, "items"))
    assert half.value - half.low == pytest.approx(alone.value - alone.low, abs=0.02)
    reach = 0.5 * wilson(0.0, 20)[1]
    assert half.high - half.value == pytest.approx(math.hypot(alone.high - alone.value, reach), abs=0.02)


def test_a_subtracted_section_that_is_all_wrong_widens_the_gap_downwards() -> None:
    easy, hard = [1.0] * 30, [0.0] * 30
    figure = replace(sections(easy, hard, coefficients=[1.0, -1.0]), bounds=(-1.0, 1.0))
    gap = estimated(figure, strata=of_groups(easy, hard))
    assert (gap.value, gap.high) == (1.0, 1.0)
    assert gap.low == pytest.approx(1 - math.hypot(*[wilson(0.0, 30)[1]] * 2))


def test_subsets_that_each_agree_but_differ_are_not_certain() -> None:
    groups = [1.0] * 30, [0.0] * 10
    result = estimated(shares([*groups[0], *groups[1]]), strata=of_groups(*groups))
    assert result.value == 0.75
    reach = [share * wilson(0.0, len(group))[1] for share, group in zip((0.75, 0.25), groups, strict=True)]
    assert interval(result) == pytest.approx((0.75 - reach[0], 0.75 + reach[1]))


# The bootstrap


def test_the_value_is_the_weighted_mean_by_hand() -> None:
    figure = mean_figure(np.array([1.0, 6 / 9]), np.array([0, 1]), np.array([1.0, 9.0]), n=10, unit="pairs")
    assert estimated(figure).value == pytest.approx(0.7)
    two = sections([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0], coefficients=[2.0, -3.0])
    assert estimated(replace(two, bounds=None)).value == pytest.approx(2 * 0.25 - 3 * 2 / 3)


def test_bca_is_scipys_where_every_prompt_has_one_item() -> None:
    values = np.random.default_rng(3).lognormal(size=60)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    assert interval(estimated(free(values), MANY)) == pytest.approx(tuple(reference.confidence_interval), rel=0.02)


def test_bca_is_scipys_for_a_ratio_of_sums() -> None:
    random = np.random.default_rng(5)
    counts = random.integers(1, 9, 50).astype(float)
    totals = random.binomial(counts.astype(int), random.beta(2, 1, 50)).astype(float)
    reference = stats.bootstrap(
        (totals, counts), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), paired=True,
        n_resamples=20_000, method="BCa", rng=np.random.default_rng(0),
    )  # fmt: skip
    ours = estimated(free(totals / counts, weights=counts), MANY)
    assert interval(ours) == pytest.approx(tuple(reference.confidence_interval), abs=0.006)


def test_bca_is_scipys_for_the_difference_of_two_samples() -> None:
    random = np.random.default_rng(7)
    first, second = random.lognormal(size=40), random.lognormal(size=25)
    reference = stats.bootstrap(
        (first, second), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis),
        n_resamples=20_000, method="BCa", rng=np.random.default_rng(0),
    )  # fmt: skip
    figure = replace(sections(first.tolist(), second.tolist(), coefficients=[1.0, -1.0]), bounds=None)
    ours = estimated(figure, MANY, of_groups(first.tolist(), second.tolist()))
    assert interval(ours) == pytest.approx(tuple(reference.confidence_interval), abs=0.05)


def test_parts_that_share_prompts_are_resampled_together() -> None:
    values = np.random.default_rng(0).normal(size=80)
    prompts = np.arange(80)
    opposed = Figure((Part(values, prompts), Part(3 - values, prompts)), 160, "items", None)
    assert (estimated(opposed).low, estimated(opposed).high) == pytest.approx((3.0, 3.0), abs=1e-9)
    doubled = Figure((Part(values, prompts), Part(values, prompts)), 160, "items", None)
    single = estimated(free(values))
    assert interval(estimated(doubled)) == pytest.approx((2 * single.low, 2 * single.high))


def test_strata_keep_what_lies_between_them_out_of_the_interval() -> None:
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(0, 1, 50), random.normal(100, 1, 50)])
    inside = estimated(free(values), strata=[0] * 50 + [1] * 50)
    half = 1.96 * math.sqrt(values[:50].var() / 50 + values[50:].var() / 50) / 2
    assert interval(inside) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert estimated(free(values)).high - estimated(free(values)).low > 15


def test_a_mean_over_subsets_is_the_sum_of_their_means_by_size() -> None:
    random = np.random.default_rng(8)
    groups = [(shift + random.lognormal(size=size)).tolist() for shift, size in ((0, 12), (50, 30), (9, 18))]
    strata = of_groups(*groups)
    parts = replace(sections(*groups, coefficients=[len(group) / 60 for group in groups]), bounds=None)
    whole = estimated(free(np.concatenate(groups)), strata=strata)
    assert interval(estimated(parts, strata=strata)) == pytest.approx(interval(whole), abs=0.003)


def test_strata_of_a_single_prompt_are_pooled_so_that_they_show_spread() -> None:
    values = np.random.default_rng(2).normal(size=30)
    alone = estimated(free(values), strata=list(range(30)))
    assert interval(alone) == pytest.approx(interval(estimated(free(values))))
    last = estimated(free(np.append(values, 50.0)), strata=[0] * 15 + [1] * 15 + [2])
    assert last.high - last.low > 3


def test_an_interval_does_not_depend_on_what_is_estimated_beside_it() -> None:
    random = np.random.default_rng(4)
    figures = {
        "all": free(random.normal(size=50)),
        "some": free(random.normal(size=20), range(10, 30)),
        "as many others": free(random.normal(size=20), [*range(5), *range(35, 50)]),
        "pairs": shares(random.random(50).round().tolist(), [i // 2 for i in range(50)]),
    }
    strata = np.arange(50) % 3
    together = estimate_all(figures, FAST, strata=strata)
    assert together == {name: estimate_all({"": figure}, FAST, strata=strata)[""] for name, figure in figures.items()}


def test_a_part_that_a_resample_leaves_empty_keeps_its_value() -> None:
    # with four prompts in one stratum every sixteenth resample has none of a part
    result = estimated(replace(sections([0.0, 0.1], [0.2, 0.3]), bounds=None))
    assert 0.1 <= result.low < result.value < result.high <= 0.2


@hypothesis_settings(deadline=None, max_examples=25)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-5, 5), seed=st.integers(0, 99))
def test_the_scale_of_weights_does_not_matter_and_a_shift_of_values_shifts(
    scale: float, shift: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values, weights, prompts = random.normal(size=30), random.random(30) + 0.1, random.integers(0, 12, 30).tolist()
    few = Bootstrap(resamples=60)
    before = estimated(free(values, prompts, weights), few)
    after = estimated(free(values + shift, prompts, weights * scale), few)
    moved = (before.value + shift, before.low + shift, before.high + shift)
    assert (after.value, after.low, after.high) == pytest.approx(moved, abs=1e-7)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=12),
    prompts=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    strata=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)  # fmt: skip
def test_an_interval_holds_its_value_and_stays_in_its_bounds(
    values: list[float], prompts: list[int], strata: list[int]
) -> None:
    result = estimated(shares(values, prompts[: len(values)]), Bootstrap(resamples=30), strata)
    assert 0 <= result.low <= result.value <= result.high <= 1
    assert result.low < result.high


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    figure = free(np.random.default_rng(0).normal(size=30))
    assert estimated(figure) == estimated(figure, Bootstrap(resamples=400, seed=0))
    assert estimated(figure) != estimated(figure, Bootstrap(resamples=400, seed=1))


def test_resampling_in_several_parts_is_still_a_resampling() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 2500)  # 200 resamples fit in a part
    half = 1.96 * values.std() / 50
    result = estimated(free(values), Bootstrap(resamples=900))
    assert interval(result) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_a_difference_is_of_the_same_items_and_has_wider_bounds() -> None:
    gap = minus(shares([1, 0, 1]), shares([0, 0, 1]))
    assert (gap.bounds, gap.parts[0].bounds) == ((-1.0, 1.0), (-1.0, 1.0))
    assert estimated(gap).value == pytest.approx(1 / 3)
    assert minus(free(np.ones(2)), free(np.zeros(2))).bounds is None
    for other in (shares([1, 0]), shares([1, 0, 1], [0, 1, 1]), sections([1.0], [0.0, 1.0])):
        with pytest.raises(BadInput, match="not of the same items"):
            minus(shares([1, 0, 1]), other)


@pytest.mark.parametrize(
    "settings",
    [
        {"resamples": 0},
        {"resamples": -1},
        {"resamples": 10**12},
        {"seed": -1},
        {"confidence": 1.0},
        {"confidence": 0.0},
        {"confidence": float("nan")},
        {"confidence": 5.0},
    ],
)
def test_an_impossible_bootstrap_is_refused(settings: dict) -> None:
    with pytest.raises(BadInput, match=r"wanted|more than 1,000,000 resamples, which PREFRANK_MAX_RESAMPLES may raise"):
        Bootstrap(**settings)
