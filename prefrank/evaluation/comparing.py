"""Two scorers, or several, on the same items: how far apart are they, and could chance alone have done it?

- The interval of a difference is of the paired difference. Two intervals that overlap say nothing exact about it.
- The permutation test swaps the two scorers on whole prompts. McNemar's test knows nothing of prompts;
  `McNemar.clustered` says where it is not to be trusted.
- Many slices give one that looks different by chance. All figures but the headline are adjusted together (Holm).
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64

from prefrank.errors import BadInput
from prefrank.stats.arrays import distinct
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.bounds import Probability
from prefrank.stats.estimates import Estimate, estimate_all
from prefrank.stats.figures import Figure, minus, sums_of
from prefrank.stats.significance import detectable, fair_coin_test, holm, letters, swap_tests

Verdict = Literal["better", "worse", "cannot be told apart"]


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
    sums = {name: gap_sums for name, gap in gaps.items() if (gap_sums := sums_of(gap, strata)) is not None}
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
    exact: Probability
    mid_p: Probability
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
    return McNemar(len(right), b, c, *fair_coin_test(b, c), clustered)


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
