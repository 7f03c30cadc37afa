"""Rows that begin alike as a tree of segments, so that a network that reads from left to right computes each once.

What is alike is decided on token ids, row by row in their order as sequences: neighbours have the longest common
beginnings. Rows of two tables of positions (`Causal.table`) share nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.types import Batch, Causal, Row, Tree

LEAST_SHARED = 8
"""Fewer tokens in common are computed twice: a segment more costs more than they do."""
KEYS_PER_TOKEN = 8
"""Of a batch's budget: its rows together may read so many keys for each token that it may hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """Rows in the order in which those that begin alike stand together.

    Args:
        order: [N] which of the caller's rows stands at each place.
        ids: token ids of each, in that order, up to the one that is scored.
        types: their token types.
        lengths: [N] tokens of each whole row.
        common: [N] how many tokens each has in common with the row before it; 0 for the first.
    """

    order: Int64[np.ndarray, " N"]
    ids: list[Int64[np.ndarray, " _"]]
    types: list[np.ndarray]
    lengths: Int64[np.ndarray, " N"]
    common: Int64[np.ndarray, " N"]


def count_tokens(rows: Sequence[Row], causal: Causal | None) -> int:
    """Tokens that are computed of rows: all, or where a network reads from left to right those that differ, as they
    would be in one batch.
    """
    if causal is None or not rows:
        return sum(len(row.ids) for row in rows)
    ordered = put_in_order(rows, causal)
    return sum(map(len, ordered.ids)) - int(ordered.common.sum())


def put_in_order(rows: Sequence[Row], causal: Causal) -> Ordered:
    """Sort rows by table and then by token ids, the shorter first where one begins another."""
    ends = [causal.scored_length(row.ids) for row in rows]
    keys = [
        (causal.table(len(row.ids)), row.ids[:end].astype(">i8").tobytes()) for row, end in zip(rows, ends, strict=True)
    ]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    ids = [rows[n].ids[: ends[n]] for n in order]
    common = [0] * len(order)
    for place in range(1, len(order)):
        if keys[order[place]][0] == keys[order[place - 1]][0]:
            common[place] = common_length(ids[place - 1], ids[place])
    return Ordered(
        order=np.array(order, np.int64),
        ids=ids,
        types=[rows[n].types[: ends[n]] for n in order],
        lengths=np.array([len(rows[n].ids) for n in order], np.int64),
        common=np.array(common, np.int64),
    )


def common_length(first: Int64[np.ndarray, " a"], second: Int64[np.ndarray, " b"]) -> int:
    """How many tokens two rows have in common from their beginning."""
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differ[0]) if len(differ) else shorter


class GrowingTree:
    """The tree of rows that are added in their order, from the place `first` on.

    `_path` holds the segments of the last row, from its root: each new row leaves it where the two part. A segment in
    which they part is divided there, unless that is so soon after its beginning that they rather part there.
    """

    def __init__(self, ordered: Ordered, first: int) -> None:
        self.ordered = ordered
        self.first = first
        self.tokens = self.keys = 0
        self._spans: list[tuple[int, int, int]] = []  # of each segment: place of a row, first token, end
        self._parents: list[int] = []
        self._path: list[int] = []
        self._leaves: list[int] = []

    def has_room(self, max_tokens: int) -> bool:
        """Whether the next row fits into a batch with the others; the first always does."""
        place = self.first + len(self._leaves)
        length = len(self.ordered.ids[place])
        tokens, keys = self.tokens + length - self._parting(place)[1], self.keys + length
        return not self._leaves or (tokens <= max_tokens and keys <= KEYS_PER_TOKEN * max_tokens)

    def add(self) -> None:
        """Take the next row in."""
        place = self.first + len(self._leaves)
        length = len(self.ordered.ids[place])
        depth, shared = self._parting(place)
        del self._path[depth:]
        parent = self._path[-1] if self._path else -1
        if parent >= 0 and shared < self._spans[parent][2]:
            row, start, stop = self._spans[parent]
            upper = self._new(row, start, shared, self._parents[parent])
            self._spans[parent], self._parents[parent] = (row, shared, stop), upper
            self._path[-1] = parent = upper
        if shared < length:
            self._path.append(self._new(place, shared, length, parent))
        self._leaves.append(self._path[-1])
        self.tokens += length - shared
        self.keys += length

    def _parting(self, place: int) -> tuple[int, int]:
        """How many segments of the path the row at this place goes through, the last perhaps in part, and how many
        tokens it shares.
        """
        common = int(self.ordered.common[place]) if self._path else 0
        depth = len(self._path)
        while depth and self._spans[self._path[depth - 1]][1] >= common:
            depth -= 1
        if depth:
            _, start, stop = self._spans[self._path[depth - 1]]
            if common < stop and common - start < LEAST_SHARED:
                return depth - 1, start
        return depth, common

    def _new(self, place: int, start: int, end: int, parent: int) -> int:
        self._spans.append((place, start, end))
        self._parents.append(parent)
        return len(self._spans) - 1

    def batch(self) -> Batch:
        """The rows so far, packed."""
        ordered, rows = self.ordered, slice(self.first, self.first + len(self._leaves))
        order = sorted(range(len(self._spans)), key=lambda segment: self._spans[segment][:2])  # parents come first
        new = {old: number for number, old in enumerate(order)} | {-1: -1}
        parts = [self._spans[segment] for segment in order]
        return Batch(
            ids=np.concatenate([ordered.ids[place][start:end] for place, start, end in parts]),
            types=np.concatenate([ordered.types[place][start:end] for place, start, end in parts]),
            rows=ordered.order[rows],
            starts=np.cumsum([0, *(end - start for _, start, end in parts)]),
            tree=Tree(
                parents=np.array([new[self._parents[segment]] for segment in order], np.int64),
                leaves=np.array([new[leaf] for leaf in self._leaves], np.int64),
                lengths=ordered.lengths[rows],
            ),
        )
