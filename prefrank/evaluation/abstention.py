"""What does a model gain by abstaining from what it is least sure of?"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from prefrank.evaluation.samples import Sample
from prefrank.evaluation.slices import share_of
from prefrank.io.schema import Between
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Probability

COVERAGES = tuple(share / 100 for share in range(100, 0, -5))


@dataclass(frozen=True, slots=True)
class Point:
    """The accuracy on the most confident pairs.

    Args:
        coverage: their share of all, by weight. Pairs of equal confidence are kept together, so it can be above what
            was asked for.
        threshold: the least margin, either way, that is kept.
        accuracy, low, high: and its interval.
        n: pairs.
    """

    coverage: Probability
    threshold: Annotated[float, Between(0.0)]
    accuracy: Probability | None
    low: Probability | None
    high: Probability | None
    n: int


@dataclass(frozen=True, slots=True)
class Abstention:
    """What a model that abstains from its least confident pairs gets on the rest.

    Args:
        points: coverage descending from 1.
        area: under the curve of risk (1 - accuracy) over coverage: less is better (Geifman and El-Yaniv 2017, arXiv
            1705.08500).
    """

    points: tuple[Point, ...]
    area: float | None


def abstention(sample: Sample, bootstrap: Bootstrap | None = None) -> Abstention:
    """Accuracy at coverage 100, 95, ..., 5 %, the largest margins kept; no point without decided pairs.

    A pair keeps its weight when others of its item are left out. Failed scores are the first to be left out.
    """
    pairs, level = sample.pairs, (bootstrap or Bootstrap()).confidence
    weight, right, sizes = pairs.share, sample.wins, sample.sizes
    kept = np.flatnonzero(weight > 0)
    if not len(kept):
        return Abstention((), None)
    masses = np.bincount(sizes.place, weight)
    used = np.flatnonzero(masses)[::-1]  # from the most confident on, those of decided pairs
    mass = masses[used]
    covered = np.cumsum(mass) / mass.sum()
    risk = np.cumsum(np.bincount(sizes.place, weight * (1 - right))[used]) / np.cumsum(mass)
    points = []
    # A hair less than asked for, or rounding in the sum could keep a pair too many.
    for cut in dict.fromkeys(np.searchsorted(covered, np.array(COVERAGES) - 1e-9).tolist()):
        threshold = float(sizes.values[used[cut]])
        kept = kept[sizes.place[kept] >= used[cut]]  # fewer each time
        accuracy = share_of(right, weight, pairs, confidence=level, kept=kept)
        points.append(Point(float(covered[cut]), threshold, accuracy.value, accuracy.low, accuracy.high, accuracy.n))
    return Abstention(tuple(points), float(mass @ risk / mass.sum()))
