"""Counts and histograms that any thread may add to: what metrics are made of."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from threading import Lock

Number = int | float


class Spread:
    """How many values lie at most at each edge, and their sum: a histogram. Not for several threads by itself."""

    def __init__(self, edges: Sequence[Number]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(self.edges) + 1)
        self.total: Number = 0.0

    def add(self, values: Iterable[Number]) -> None:
        for value in values:
            self.counts[bisect_left(self.edges, value)] += 1
            self.total += value

    def buckets(self) -> list[tuple[str, int]]:
        """Each edge, as Prometheus writes it, with the values up to it."""
        return list(zip([*map(repr, self.edges), "+Inf"], accumulate(self.counts), strict=True))


class Tally:
    """Counts by name and label, and histograms by name; a method takes microseconds and waits for nothing else.

    Args:
        edges: name -> of its histogram.
    """

    def __init__(self, edges: Mapping[str, Sequence[Number]]) -> None:
        self._lock = Lock()
        self._counts: dict[tuple[str, tuple[str, ...]], Number] = {}
        self._edges = edges
        self._spreads: dict[tuple[str, tuple[str, ...]], Spread] = {}

    def count(self, name: str, by: Number = 1, labels: tuple[str, ...] = ()) -> None:
        with self._lock:
            self._counts[name, labels] = self._counts.get((name, labels), 0) + by

    def spread(self, name: str, values: Iterable[Number], labels: tuple[str, ...] = ()) -> None:
        with self._lock:
            spread = self._spreads.get((name, labels))
            if spread is None:
                spread = self._spreads[name, labels] = Spread(self._edges[name])
            spread.add(values)

    def counts(self, name: str) -> dict[tuple[str, ...], Number]:
        """Labels -> the count, of one name."""
        with self._lock:
            return {labels: value for (each, labels), value in self._counts.items() if each == name}

    def spreads(self, name: str) -> dict[tuple[str, ...], tuple[list[tuple[str, int]], Number]]:
        """Labels -> buckets and sum, of one name."""
        with self._lock:
            held = {labels: spread for (each, labels), spread in self._spreads.items() if each == name}
            return {labels: (spread.buckets(), spread.total) for labels, spread in held.items()}
