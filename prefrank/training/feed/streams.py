"""Training comparisons from streams: mixed by share, shuffled in a buffer, a pure function of the seed.

Where one data set streams, all of them are drawn from here, including those in memory. Nothing that was drawn is kept,
so a resumed run draws everything again up to its step, which costs reading and encoding but no training.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np

from prefrank.errors import BadData
from prefrank.training.feed.clean import Exclusions
from prefrank.types import Comparison

Read = Callable[[Callable[[str], None]], Iterable[Comparison]]
"""One pass over a data set; its argument is called with the reason where a row gives no comparison."""
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class StreamedSet:
    """One data set to draw from.

    Args:
        name: of the set.
        rule: which part of it is read, in words.
        read: one pass over it.
        fingerprint: tells whether it changed.
        share: how often it is drawn from, relative to the others.
        weight: what each of its comparisons counts in the loss.
        limit: most comparisons of a pass, before anything is left out here; None: all.
        buffer: comparisons held to shuffle.
        excluded: what is left out.
    """

    name: str
    rule: str
    read: Read
    fingerprint: str
    share: float
    weight: float
    limit: int | None
    buffer: int
    excluded: Exclusions


class Mixture:
    """An endless draw from several data sets, each again and again, newly shuffled.

    Args:
        sets: to draw from.
        seed: of everything that is drawn.
    """

    def __init__(self, sets: Sequence[StreamedSet], seed: int) -> None:
        self.sets, self._seed = tuple(sets), seed
        self.drawn: Counter[str] = Counter()
        self.dropped: dict[str, Counter[str]] = {dataset.name: Counter() for dataset in sets}

    def draw(self) -> Iterator[tuple[Comparison, float]]:
        """Comparisons with their weights in the loss; resets the counts.

        Raises:
            BadData: a set that gives nothing in a whole pass.
        """
        self.drawn.clear()
        for counts in self.dropped.values():
            counts.clear()
        shares = np.array([dataset.share for dataset in self.sets])
        sources = [self._passes(number) for number in range(len(self.sets))]
        draw = np.random.default_rng([self._seed, len(self.sets)])
        while True:
            for number in draw.choice(len(self.sets), size=_BLOCK, p=shares / shares.sum()).tolist():
                dataset = self.sets[number]
                self.drawn[dataset.name] += 1
                yield next(sources[number]), dataset.weight

    def account(self) -> list[dict[str, Any]]:
        """What was drawn from each set so far, and why rows gave nothing, as plain values."""
        return [
            {
                "name": dataset.name,
                "rule": dataset.rule,
                "drawn": self.drawn[dataset.name],
                "dropped": dict(self.dropped[dataset.name]),
            }
            for dataset in self.sets
        ]

    def digest(self) -> str:
        """A hash of what is drawn from, and how."""
        parts = [(s.name, s.fingerprint, s.share, s.weight, s.excluded.fraction, s.limit, s.buffer) for s in self.sets]
        return hashlib.sha256(repr((parts, self._seed)).encode()).hexdigest()[:16]

    def _passes(self, number: int) -> Iterator[Comparison]:
        dataset = self.sets[number]
        for again in count():
            given = 0
            for comparison in shuffle(
                self._wanted(dataset), dataset.buffer, np.random.default_rng([self._seed, number, again])
            ):
                given += 1
                yield comparison
            if not given:
                raise BadData(f"{dataset.name} gave no comparison in a whole pass ({dict(self.dropped[dataset.name])})")

    def _wanted(self, dataset: StreamedSet) -> Iterator[Comparison]:
        dropped = self.dropped[dataset.name]

        def drop(reason: str) -> None:
            dropped[reason] += 1

        for comparison in islice(dataset.read(drop), dataset.limit):
            if reason := dataset.excluded.reason(comparison):
                drop(reason)
            else:
                yield comparison


def shuffle(comparisons: Iterable[Comparison], size: int, draw: np.random.Generator) -> Iterator[Comparison]:
    """Each comparison once, in an order that is random as far as a buffer of `size` reaches."""
    buffer: list[Comparison] = []
    for comparison in comparisons:
        if len(buffer) < size:
            buffer.append(comparison)
        else:
            place = int(draw.integers(size))
            yield buffer[place]
            buffer[place] = comparison
    for place in draw.permutation(len(buffer)).tolist():
        yield buffer[place]
