"""What people said of the replies to one prompt: preferences between two of them, a long ranked list's, ratings.

Their public names are those of `prefrank.types`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from operator import eq
from typing import overload

import numpy as np
from jaxtyping import Bool, Int32

from prefrank.errors import BadInput
from prefrank.limits import limit, past

MAIN_HEAD = "overall"
"""The head of a label that names none: how good a reply is as a whole."""


@dataclass(frozen=True, slots=True)
class Preference:
    """People preferred reply `winner` to reply `loser` with the given probability.

    Args:
        winner: index into the comparison's replies.
        loser: index into the comparison's replies.
        probability: of the winner winning, 0 to 1; 0.5 is a tie.
        weight: how much this preference counts inside its comparison, above 0.
        margin: by how much the winner's score should exceed the loser's, in score units (0: however little).
        strength: how much better the likelier winner was called, on the data set's own scale of levels: 0 about the
            same (a tie), 1 slightly better, then 2, 3, ...; None where nobody said.
        head: which of several labels this is, such as "accuracy"; each head is an output of its own.
    """

    winner: int
    loser: int
    probability: float = 1.0
    weight: float = 1.0
    margin: float = 0.0
    strength: int | None = None
    head: str = MAIN_HEAD

    def __post_init__(self) -> None:
        if self.winner == self.loser:
            raise BadInput(f"a preference names reply {self.winner} as both winner and loser")
        if not 0.0 <= self.probability <= 1.0:
            raise BadInput(f"a preference's probability is {self.probability}; wanted 0 to 1")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise BadInput(f"a preference's weight is {self.weight}; wanted a finite number above 0")
        if not math.isfinite(self.margin):
            raise BadInput(f"a preference's margin is {self.margin}; wanted a finite number")
        if self.strength is not None and (self.strength < 0 or (self.strength == 0) != self.tie):
            raise BadInput(
                f"a preference's strength is {self.strength} at probability {self.probability};"
                " wanted 0 for a tie (probability 0.5), else 1 or more"
            )

    @property
    def tie(self) -> bool:
        return self.probability == 0.5


@dataclass(frozen=True, slots=True, eq=False)
class RankedPairs(Sequence[Preference]):
    """All pairs of a long ranked list, each made when it is asked for: of 3,000 replies there are 4.5 million.

    What a ranking says by itself, such as how many pairs and ties there are, is told without them.

    Args:
        ranks: of each reply, the least is the best; equal ranks are ties, None is not ranked.
        head: which of several labels this is.
    """

    ranks: tuple[float | int | None, ...]
    head: str = MAIN_HEAD

    @property
    def ranked(self) -> list[int]:
        """The replies that have a rank."""
        return [reply for reply, rank in enumerate(self.ranks) if rank is not None]

    @property
    def ties(self) -> int:
        """Pairs of equal rank."""
        counts = Counter(rank for rank in self.ranks if rank is not None)
        return sum(count * (count - 1) // 2 for count in counts.values())

    def arrays(self) -> tuple[Int32[np.ndarray, " P"], Int32[np.ndarray, " P"], Bool[np.ndarray, " P"]]:
        """Winner, loser, and whether it is a tie, of every pair in their order: what iterating gives, without objects.

        Raises:
            BadInput: more pairs than `limit("pairs")`.
        """
        self._check()
        replies = np.array(self.ranked, np.int32)
        count = len(replies)
        first = np.repeat(np.arange(count, dtype=np.int32), np.arange(count - 1, -1, -1))
        second = np.concatenate([np.arange(i + 1, count, dtype=np.int32) for i in range(count)] or [first])
        level = np.array([level for level in self.levels if level is not None], np.int32)
        behind = level[first] > level[second]
        winner, loser = replies[np.where(behind, second, first)], replies[np.where(behind, first, second)]
        return winner, loser, level[first] == level[second]

    @property
    def levels(self) -> list[int | None]:
        """For each reply, the place of its rank among the distinct ranks, 0 the best; None for one without a rank."""
        ordered = sorted({rank for rank in self.ranks if rank is not None})  # exact, for whole numbers of any size
        place = {rank: number for number, rank in enumerate(ordered)}
        return [None if rank is None else place[rank] for rank in self.ranks]

    def _check(self) -> None:
        if len(self) > limit("pairs"):
            raise BadInput(f"{len(self.ranked):,} ranked replies have {past('pairs')}; split the list")

    def __len__(self) -> int:
        count = sum(rank is not None for rank in self.ranks)
        return count * (count - 1) // 2

    def __iter__(self) -> Iterator[Preference]:
        self._check()
        return (self._between(i, j) for i, j in combinations(self.ranked, 2))

    def _between(self, i: int, j: int) -> Preference:
        mine, other = self.ranks[i], self.ranks[j]
        if mine == other:
            return Preference(i, j, probability=0.5, head=self.head)
        better = mine is not None and other is not None and mine < other
        return Preference(i, j, head=self.head) if better else Preference(j, i, head=self.head)

    @overload
    def __getitem__(self, index: int) -> Preference: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Preference, ...]: ...
    def __getitem__(self, index: int | slice) -> Preference | tuple[Preference, ...]:
        if isinstance(index, slice):
            return tuple(islice(self, *index.indices(len(self)))) if (index.step or 1) > 0 else tuple(self)[index]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        replies = self.ranked
        for first, reply in enumerate(replies):
            after = len(replies) - first - 1
            if place < after:
                return self._between(reply, replies[first + 1 + place])
            place -= after
        raise IndexError(index)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RankedPairs):
            return self.head == other.head and (
                self.ranks == other.ranks or (len(self) == len(other) and all(map(eq, self, other)))
            )
        return isinstance(other, tuple) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((len(self), self.ties, self.head))


@dataclass(frozen=True, slots=True)
class Ratings:
    """What the replies of one comparison were rated, under one head, higher is better.

    Args:
        values: one for each reply; None where it was not rated.
        head: which of several labels this is.
    """

    values: tuple[float | None, ...]
    head: str = MAIN_HEAD

    def __post_init__(self) -> None:
        for value in self.values:
            if value is not None and not math.isfinite(value):
                raise BadInput(f"a rating of {self.head} is {value}; wanted a finite number or None")


Preferences = tuple[Preference, ...] | RankedPairs
"""The preferences of one comparison, in their order."""
