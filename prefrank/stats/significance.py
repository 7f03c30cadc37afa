"""Could chance alone have done it? Paired tests of two models, and what many tests at once ask for.

scipy has the binomial test, but neither Holm's adjustment nor a permutation test of clusters; what is here of the
binomial is exact in whole numbers, and needs no scipy in the base install.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from prefrank.stats.arrays import distinct
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.figures import Sums

_WHOLE = 100_000
"""Trials up to which the binomial test is computed in whole numbers."""

_EXACT = 13
"""Prompts up to which every swap is tried: 2^13 = 8,192."""


def swap_tests(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, float]:
    """p of each difference, from swapping the two models on random prompts; the swaps are the same for all.

    What is swapped is whole prompts, never one pair: pairs of one prompt stand or fall together. A swap turns the sign
    of what the prompt adds to the difference, for every figure is a sum of weighted means with weights that no model
    changes. With up to 13 prompts that differ, every swap is tried; otherwise p is (1 + count) / (1 + R) (Phipson and
    Smyth 2010).
    """
    if not sums:
        return {}
    prompts = distinct(np.concatenate([each.prompts for each in sums.values()]))
    added = np.zeros((len(prompts), len(sums)))
    for column, each in enumerate(sums.values()):
        added[np.searchsorted(prompts, each.prompts), column] = each.added
    observed = np.abs(added.sum(0))
    reached = observed - 1e-9 * np.abs(added).sum(0)
    count = np.zeros(len(sums))
    few = np.count_nonzero(added, axis=0) <= _EXACT
    for signs in _signs(len(prompts), bootstrap):
        count += (np.abs(signs @ added) >= reached).sum(0)
    p = (1 + count) / (1 + bootstrap.resamples)
    for column in np.flatnonzero(few).tolist():
        own = added[added[:, column] != 0, column]
        p[column] = np.mean(np.abs(_all_signs(len(own)) @ own) >= reached[column])
    return {name: float(value) for name, value in zip(sums, p, strict=True)}


def _signs(size: int, bootstrap: Bootstrap) -> Iterator[Float64[np.ndarray, "r C"]]:
    random, rows = np.random.default_rng(bootstrap.seed), max(1, 500_000 // size)
    for first in range(0, bootstrap.resamples, rows):
        count = min(rows, bootstrap.resamples - first)
        bits = np.frombuffer(random.bytes(count * ((size + 7) // 8)), np.uint8).reshape(count, -1)
        yield 1.0 - 2.0 * np.unpackbits(bits, axis=1, count=size)


def _all_signs(size: int) -> Float64[np.ndarray, "S n"]:
    return 1.0 - 2.0 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)


def detectable(sums: Sums) -> float | None:
    """(z of 97.5 % + z of 80 %) = 2.8 paired standard errors; None where the prompts show no spread."""
    error = sums.standard_error
    normal = NormalDist()
    return (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * error if error > 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): compare the results with the level as it is.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = most
    return adjusted


def fair_coin_test(b: int, c: int) -> tuple[float, float]:
    """Two-sided exact and mid-p of b heads and c tails; the mid-p counts the observed outcome half.

    >>> fair_coin_test(0, 2)
    (0.5, 0.25)
    """
    if b + c == 0:
        return 1.0, 1.0
    if b + c > _WHOLE:
        return _tails(min(b, c), b + c)
    below, term = 0, 1  # whole numbers: nothing overflows, and small tails keep their digits
    for k in range(min(b, c) + 1):
        below, last = below + term, term
        term = term * (b + c - k) // (k + 1)
    all_outcomes = 2 ** (b + c)
    return min(1.0, 2 * below / all_outcomes), (2 * below - last) / all_outcomes


def _tails(k: int, n: int) -> tuple[float, float]:
    """The exact and the mid-p of k or fewer of n fair trials, k <= n / 2, in floats: true to eight digits.

    P(X = k) from the gamma function, and the lesser ones by their ratios, (i + 1) / (n - i) from one down to the next,
    which soon are too small to count.
    """
    last = math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
    lesser = np.arange(k, max(0, k - 60 * math.isqrt(n)), -1)  # P falls as exp(-2 d^2 / n), d from the middle
    ratios = lesser / (n - lesser + 1.0)
    below = last * (1.0 + float(np.cumprod(ratios).sum()))
    return min(1.0, 2 * below), min(1.0, 2 * below - last)


def letters(names: Sequence[str], apart: Collection[tuple[str, str]]) -> dict[str, str]:
    """A compact letter display: names share a letter unless they are apart (insert and absorb, Piepho 2004).

    >>> letters(["x", "y", "z"], {("x", "z")})
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    columns = [frozenset(names)]
    for pair in apart:
        split = [column - {gone} for column in columns if column.issuperset(pair) for gone in pair]
        columns = [column for column in columns if not column.issuperset(pair)] + split
        unlike = list(dict.fromkeys(columns))
        columns = [column for column in unlike if not any(column < wider for wider in unlike)]
    place = {name: i for i, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {name: "".join(_letter(i) for i, column in enumerate(columns) if name in column) for name in names}


def _letter(number: int) -> str:
    """a to z, then a1, b1, ..."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
