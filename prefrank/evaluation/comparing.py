"""Two scorers, or several, on the same items: how far apart are they, and could chance alone have done it?

Surprising:
- The interval of a difference is of the paired difference. Two intervals that overlap say nothing exact about it.
- What is swapped in the permutation test is the two scorers on a whole prompt, never on one pair: pairs of one prompt
  stand or fall together. McNemar's test knows nothing of prompts; `McNemar.clustered` says where it is not to be
  trusted.
- Many slices give one that looks different by chance. All figures but the headline are adjusted together (Holm).
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.errors import BadInput
from prefrank.stats.estimates import Bootstrap, Estimate, Figure, Sums, distinct, estimate_all, minus, sums_of

Verdict = Literal["better", "worse", "cannot be told apart"]

_WHOLE = 100_000
"""Pairs on which two scorers differ up to which McNemar's test is reckoned in whole numbers."""

_EXACT = 13
"""Prompts up to which every swap is tried: 2^13 = 8,192."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of a scorer less that of another, on the same items.

    Args:
        difference: with its paired interval.
        p: chance of a difference this large either way if swapping the two scorers on any prompt changed nothing.
        p_adjusted: for the number of figures looked at (Holm); equal to `p` for the headline.
        detectable: the least true difference found four times in five with these prompts and these two scorers, at 5 %.
        verdict: on the first scorer, by `p_adjusted`; None where there is no value.
    """

    difference: Estimate
    p: float | None
    p_adjusted: float | None
    detectable: float | None
    verdict: Verdict | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    figures: Mapping[str, Figure],
    others: Mapping[str, Figure],
    bootstrap: Bootstrap,
    *,
    strata: Int64[np.ndarray, " G"] | None = None,
    slices: Collection[str] | None = None,
) -> dict[str, Difference]:
    """Each figure of one scorer less the same of another scorer on the same items.

    Args:
        figures: of the first scorer, the headline first.
        others: of the second, with the same names.
        bootstrap: also the seed and number of permutations.
        strata: as in `estimate_all`.
        slices: figures whose p-values are adjusted together; None: all but the first.

    Raises:
        BadInput: other names, or other items.
    """
    if set(figures) != set(others):
        odd = ", ".join(sorted(set(figures) ^ set(others))[:5])
        raise BadInput(f"the two scorers have different figures ({odd}); wanted both measured by the same suite")
    gaps = {name: minus(figure, others[name]) for name, figure in figures.items()}
    estimates = estimate_all(gaps, bootstrap, strata=strata)
    sums = {name: found for name, gap in gaps.items() if (found := sums_of(gap, strata)) is not None}
    p_values = swap_tests(sums, bootstrap)
    family = [name for name in (list(gaps)[1:] if slices is None else slices) if name in p_values]
    adjusted = p_values | dict(zip(family, holm([p_values[name] for name in family]), strict=True))
    return {
        name: Difference(
            estimate,
            p_values.get(name),
            adjusted.get(name),
            detectable(sums[name]) if name in sums else None,
            verdict(estimate.value, adjusted.get(name), level=1 - bootstrap.confidence),
        )
        for name, estimate in estimates.items()
    }


def verdict(difference: float | None, p: float | None, *, level: float = 0.05) -> Verdict | None:
    if difference is None or p is None:
        return None
    if p > level or difference == 0:
        return "cannot be told apart"
    return "better" if difference > 0 else "worse"


def swap_tests(sums: Mapping[str, Sums], bootstrap: Bootstrap) -> dict[str, float]:
    """p of each difference, from swapping the two scorers on random prompts; the swaps are the same for all.

    A swap turns the sign of what the prompt adds to the difference, for every benchmark's figure is a sum of weighted
    means with weights that no scorer changes. With up to 13 prompts that differ, every swap is tried; otherwise p is
    (1 + count) / (1 + R) (Phipson and Smyth 2010).
    """
    if not sums:
        return {}
    prompts = distinct(np.concatenate([one.prompts for one in sums.values()]))
    added = np.zeros((len(prompts), len(sums)))
    for column, one in enumerate(sums.values()):
        added[np.searchsorted(prompts, one.prompts), column] = one.added
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


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two scorers' rights and wrongs on the same pairs (McNemar 1947).

    Args:
        n: pairs.
        b: pairs that only the first scorer has right.
        c: pairs that only the second has right.
        exact: two-sided p of the exact binomial test.
        mid_p: the same counting the observed outcome half (Fagerland, Lydersen and Laake 2013): less cautious.
        clustered: prompts have several pairs, so that the test's trials are not independent: trust the permutation
            test instead.
    """

    n: int
    b: int
    c: int
    exact: float
    mid_p: float
    clustered: bool

    @property
    def discordant(self) -> int:
        return self.b + self.c

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"discordant": self.discordant}


def mcnemar(right: Bool[np.ndarray, " n"], other: Bool[np.ndarray, " n"], prompts: Int64[np.ndarray, " n"]) -> McNemar:
    """McNemar's test on pairs each scorer has right or wrong; equal scores are wrong.

    Args:
        right: [n] by the first scorer.
        other: [n] by the second.
        prompts: [n] the prompt of each pair.
    """
    b, c = int((right & ~other).sum()), int((~right & other).sum())
    clustered = len(distinct(prompts)) < len(prompts)
    if b + c == 0:
        return McNemar(len(right), 0, 0, 1.0, 1.0, clustered)
    if b + c > _WHOLE:
        exact, mid_p = _tails(min(b, c), b + c)
        return McNemar(len(right), b, c, exact, mid_p, clustered)
    below, term = 0, 1  # whole numbers: nothing overflows, and small tails keep their digits
    for k in range(min(b, c) + 1):
        below, last = below + term, term
        term = term * (b + c - k) // (k + 1)
    all_outcomes = 2 ** (b + c)
    exact = min(1.0, 2 * below / all_outcomes)
    return McNemar(len(right), b, c, exact, (2 * below - last) / all_outcomes, clustered)


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


@dataclass(frozen=True, slots=True)
class Groups:
    """Which scorers can be told apart.

    Args:
        letters: of each scorer, best first: two that share a letter cannot be told apart, "a" is the best group.
        p_adjusted: of each two scorers, in the order of `letters`, adjusted over all of them (Holm).
    """

    letters: dict[str, str]
    p_adjusted: dict[tuple[str, str], float]

    def to_json(self) -> dict[str, Any]:
        pairs = [{"a": a, "b": b, "p_adjusted": p} for (a, b), p in self.p_adjusted.items()]
        return {"letters": self.letters, "pairs": pairs}


def groups(
    figures: Mapping[str, Figure], bootstrap: Bootstrap, *, strata: Int64[np.ndarray, " G"] | None = None
) -> Groups:
    """The same figure of several scorers on the same items, put into groups; those without a value are left out.

    Paired swap tests of each two, adjusted over all of them; a compact letter display (Piepho 2004) by p at 5 %.
    """
    values = {name: sums.value for name, figure in figures.items() if (sums := sums_of(figure, strata)) is not None}
    names = sorted(values, key=lambda name: -values[name])
    pairs = list(combinations(names, 2))
    gaps = {f"{a} / {b}": sums_of(minus(figures[a], figures[b]), strata) for a, b in pairs}
    p = swap_tests({name: gap for name, gap in gaps.items() if gap is not None}, bootstrap)
    adjusted = dict(zip(pairs, holm(list(p.values())), strict=True))
    apart = {pair for pair, value in adjusted.items() if value <= 1 - bootstrap.confidence}
    return Groups(letters(names, apart), adjusted)


def letters(names: Sequence[str], apart: Collection[tuple[str, str]]) -> dict[str, str]:
    """A compact letter display: names share a letter unless they are apart (insert and absorb, Piepho 2004).

    >>> letters(["x", "y", "z"], {("x", "z")})
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    columns = [frozenset(names)]
    for one, other in apart:
        split = [column - {gone} for column in columns if {one, other} <= column for gone in (one, other)]
        columns = [column for column in columns if not {one, other} <= column] + split
        distinct = list(dict.fromkeys(columns))
        columns = [column for column in distinct if not any(column < wider for wider in distinct)]
    place = {name: i for i, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    found = {name: [i for i, column in enumerate(columns) if name in column] for name in names}
    return {name: "".join(_letter(i) for i in those) for name, those in found.items()}


def _letter(number: int) -> str:
    """a to z, then a1, b1, ..."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
