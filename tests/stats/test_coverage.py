"""How often intervals hold the truth, on simulated data sets; the bounds allow four standard errors of the count."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure, Part, mean_figure, minus
from prefrank.stats.intervals import wilson

QUICK, THOROUGH = 200, 2000
RESAMPLES = Bootstrap(resamples=300)
Strata = np.ndarray | None
Draw = Callable[[np.random.Generator], Figure]


def right(random: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    return (random.random(chance.shape) < chance).astype(np.float64)


def plain() -> tuple[Draw, float, Strata]:
    """60 prompts of one pair each."""
    return lambda random: mean_figure(right(random, np.full(60, 0.8)), np.arange(60), n=60, unit="pairs"), 0.8, None


def clustered() -> tuple[Draw, float, Strata]:
    """40 prompts of 6 pairs, which share the prompt's difficulty."""
    prompts = np.repeat(np.arange(40), 6)

    def draw(random: np.random.Generator) -> Figure:
        chance = np.repeat(random.beta(1.4, 0.6, 40), 6)
        return mean_figure(right(random, chance), prompts, n=240, unit="pairs")

    return draw, 0.7, None


def weighted_sections() -> tuple[Draw, float, Strata]:
    """RewardBench's Chat Hard: sections weighted by sizes, some of few prompts."""
    sizes, chances = np.array([37, 100, 134, 47, 92, 46]), np.array([0.7, 0.6, 0.3, 0.5, 0.5, 0.3])
    return _sections(sizes, chances, sizes / sizes.sum())


def sections_near_perfect() -> tuple[Draw, float, Strata]:
    """A large section that fails at times and six, weighted alike, that are almost or always all right."""
    sizes, chances = np.array([149, *[55] * 6]), np.array([0.9, *[0.99] * 3, *[1.0] * 3])
    return _sections(sizes, chances, np.array([6, *[1] * 6]) / 12)


def _sections(sizes: np.ndarray, chances: np.ndarray, coefficients: np.ndarray) -> tuple[Draw, float, Strata]:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    places = [np.flatnonzero(strata == number) for number in range(len(sizes))]

    def draw(random: np.random.Generator) -> Figure:
        values = right(random, chances[strata])
        parts = zip(places, coefficients.tolist(), strict=True)
        return Figure(tuple(Part(values[at], at, None, c) for at, c in parts), len(strata), "items")

    return draw, float(chances @ coefficients), strata


def subsets_of_one_mean() -> tuple[Draw, float, Strata]:
    """One mean over 30 subsets of five prompts, from coin tosses to almost always right."""
    strata = np.repeat(np.arange(30), 5)
    chance = np.linspace(0.5, 0.99, 30)[strata]
    return lambda random: mean_figure(right(random, chance), np.arange(150), n=150, unit="items"), chance.mean(), strata


def paired_difference() -> tuple[Draw, float, Strata]:
    """Two scorers on 50 prompts of 3 pairs, whose mistakes are alike."""
    prompts = np.repeat(np.arange(50), 3)

    def draw(random: np.random.Generator) -> Figure:
        luck, other = random.random(150), random.random(150)
        theirs = np.where(random.random(150) < 0.6, luck, other)
        mine, other_figure = (
            mean_figure((value < chance).astype(np.float64), prompts, n=150, unit="pairs")
            for value, chance in ((luck, 0.75), (theirs, 0.7))
        )
        return minus(mine, other_figure)

    return draw, 0.05, None


CASES = [plain, clustered, weighted_sections, sections_near_perfect, subsets_of_one_mean, paired_difference]


def coverage(case: Callable[[], tuple[Draw, float, Strata]], draws: int) -> float:
    draw, truth, strata = case()
    random = np.random.default_rng(0)
    result = [estimate_all({"": draw(random)}, RESAMPLES, strata=strata)[""] for _ in range(draws)]
    return float(np.mean([estimate.low - 1e-12 <= truth <= estimate.high + 1e-12 for estimate in result]))


@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_about_as_often_as_they_say(case: Callable[[], tuple[Draw, float, Strata]]) -> None:
    assert abs(coverage(case, QUICK) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_in_93_to_97_percent(case: Callable[[], tuple[Draw, float, Strata]]) -> None:
    assert 0.93 <= coverage(case, THOROUGH) <= 0.97


def test_counting_pairs_as_independent_would_be_overconfident() -> None:
    draw, truth, _ = clustered()
    random, held = np.random.default_rng(0), 0
    for _ in range(QUICK):
        low, high = wilson(float(draw(random).parts[0].values.sum()), 240)
        held += low <= truth <= high
    assert held / QUICK < 0.85
