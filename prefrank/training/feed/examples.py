"""Comparisons as token ids in flat arrays, encoded once before the first step.

Ids are stored as int32 in one array (half the memory of int64, and no object per row) and widened when a row is taken.
Replies that become the same row lose the preference between them; a comparison with no preference left is dropped and
counted. So are preferences of heads that are not trained. A head that a data set only rates gets its preferences here.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float32, Int8, Int32, Int64

from prefrank.data.candidates import heads_of, preferences_of
from prefrank.text import TextEncoder, distinct_rows
from prefrank.training.feed.encoding_counts import EncodingCounts
from prefrank.training.losses.labels import Preferences, Weigh, number_rows, rank_replies
from prefrank.types import MAIN_HEAD, Comparison, RankedPairs, Row, reply_types
from prefrank.types import Preferences as OfReplies

_PAIRS = 1 << 16
"""Pairs of a long ranking that are written at a time."""

_CHUNK = 256
"""Comparisons tokenized in one call: enough to keep the tokenizer's threads busy, few enough to report progress."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """C encoded comparisons with N rows of T tokens in all.

    Args:
        ids: [T] token ids of all rows, one after the other.
        types: [T] their token types.
        reply_starts: [N] index inside each row of the reply's first token.
        starts: [N+1] row n is `ids[starts[n]:starts[n + 1]]`.
        groups: comparison c owns the rows `groups[c]` up to `groups[c + 1]`; one more than there are comparisons.
        preferences: of each comparison, as indexes into its rows.
        weights: what each comparison counts in the loss.
        names: `source/id` of each comparison.
        reply_characters: [N] length of each row's whole reply, cut or not.
        places: [C] of each, where it stood among those that were given to be encoded.
        heads: what preferences, levels and ratings may speak of, in the order of the network's scores.
        ratings: [N H] of every row, NaN where there is none; None if nothing was rated.
        levels: [N H] place of every row in its comparison's ranking, 0 best, -1 for none; None unless asked for.
        unordered: names of comparisons whose preferences give no ranking as far as was asked.
        left_heads: heads in the data that are not among `heads`.
    """

    ids: Int32[np.ndarray, " T"]
    types: Int8[np.ndarray, " T"]
    reply_starts: Int32[np.ndarray, " N"]
    starts: Int64[np.ndarray, " N+1"]
    groups: Int64[np.ndarray, " G"]
    preferences: tuple[OfReplies, ...]
    weights: tuple[float, ...]
    names: tuple[str, ...]
    reply_characters: Int32[np.ndarray, " N"]
    places: Int64[np.ndarray, " C"]
    heads: tuple[str, ...] = (MAIN_HEAD,)
    ratings: Float32[np.ndarray, "N H"] | None = None
    levels: Int32[np.ndarray, "N H"] | None = None
    unordered: tuple[str, ...] = ()
    left_heads: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.preferences)

    def rows(self, comparison: int) -> list[Row]:
        """The rows of one comparison; what was cut from each is in the encoding's counts, not here."""
        return [self._row(n) for n in range(self.groups[comparison], self.groups[comparison + 1])]

    def size(self, comparison: int) -> int:
        """Number of rows of the comparison."""
        return int(self.groups[comparison + 1] - self.groups[comparison])

    def tokens(self, comparison: int) -> int:
        return int(self.starts[self.groups[comparison + 1]] - self.starts[self.groups[comparison]])

    def tokens_of(self, comparison: int) -> Int32[np.ndarray, " T"]:
        """The token ids of all of its rows."""
        return self.ids[self.starts[self.groups[comparison]] : self.starts[self.groups[comparison + 1]]]

    def longest(self, comparison: int) -> int:
        """Tokens of the comparison's longest row."""
        first, end = self.groups[comparison], self.groups[comparison + 1]
        return int(np.diff(self.starts[first : end + 1]).max())

    def labels(self, chosen: Sequence[int], *, weigh: Weigh = "comparison") -> Preferences:
        """The labels of the chosen comparisons, over their rows in their order."""
        sizes = [self.size(comparison) for comparison in chosen]

        def cut(table: np.ndarray | None) -> list[np.ndarray] | None:
            return None if table is None else [table[self.groups[c] : self.groups[c + 1]] for c in chosen]

        return number_rows(
            [self.preferences[comparison] for comparison in chosen],
            np.cumsum([0, *sizes])[:-1].tolist(),
            weigh=weigh,
            weights=[self.weights[comparison] for comparison in chosen],
            heads=self.heads,
            levels=cut(self.levels),
            ratings=cut(self.ratings),
        )

    def digest(self) -> str:
        """A hash of everything a run trains on, so that a resumed run can tell whether its data changed."""
        tables = [table for table in (self.ratings, self.levels) if table is not None]
        by_reply = np.array_equal(self.types, reply_types(np.diff(self.starts), self.reply_starts))
        tables += [] if by_reply else [self.types]
        parts = (self.ids, self.reply_starts, self.starts, self.groups, *tables)
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(part.tobytes())
        for text in _written(self.preferences, self.weights):
            hashed.update(text.encode())
        return hashed.hexdigest()[:16]

    def _row(self, n: int) -> Row:
        part = slice(self.starts[n], self.starts[n + 1])
        return Row(self.ids[part].astype(np.int64), self.types[part], int(self.reply_starts[n]), 0, 0)


class _Builder:
    """Collects encoded comparisons as int32, so that the int64 rows of a large data set are never all in memory."""

    def __init__(self, heads: tuple[str, ...], rank: int | None) -> None:
        self.heads, self.rank = heads, rank
        self.ids: list[np.ndarray] = [np.zeros(0, np.int32)]
        self.types: list[np.ndarray] = [np.zeros(0, np.int8)]
        self.reply_starts: list[int] = []
        self.sizes: list[int] = []
        self.preferences: list[OfReplies] = []
        self.weights: list[float] = []
        self.names: list[str] = []
        self.reply_characters: list[int] = []
        self.places: list[int] = []
        self.ratings: list[np.ndarray] = [np.zeros((0, len(heads)), np.float32)]
        self.levels: list[np.ndarray] = [np.zeros((0, len(heads)), np.int32)]
        self.unordered: list[str] = []
        self.left_heads: set[str] = set()

    def add(
        self,
        comparison: Comparison,
        rows: Sequence[Row],
        wanted: OfReplies,
        preferences: OfReplies,
        weight: float,
        place: int,
    ) -> None:
        self.ids += [row.ids.astype(np.int32) for row in rows]
        self.types += [row.types for row in rows]
        self.reply_starts += [row.reply_start for row in rows]
        self.sizes.append(len(rows))
        self.preferences.append(preferences)
        self.weights.append(weight)
        self.names.append(f"{comparison.source}/{comparison.id}")
        self.reply_characters += map(len, comparison.replies)
        self.places.append(place)
        self.ratings.append(_rating_table(comparison, self.heads))
        if self.rank is not None:
            by_head = [_of_head(wanted, head) for head in self.heads]
            levels_by_head = [rank_replies(group, len(rows), places=self.rank) for group in by_head]
            self.levels.append(np.array([levels or (-1,) * len(rows) for levels in levels_by_head], np.int32).T)
            self.unordered += [self.names[-1]] * (None in levels_by_head)

    def build(self) -> Examples:
        ratings = np.concatenate(self.ratings)
        return Examples(
            ids=np.concatenate(self.ids),
            types=np.concatenate(self.types),
            reply_starts=np.array(self.reply_starts, np.int32),
            starts=_boundaries([len(ids) for ids in self.ids[1:]]),
            groups=_boundaries(self.sizes),
            preferences=tuple(self.preferences),
            weights=tuple(self.weights),
            names=tuple(self.names),
            reply_characters=np.array(self.reply_characters, np.int32),
            places=np.array(self.places, np.int64),
            heads=self.heads,
            ratings=None if np.isnan(ratings).all() else ratings,
            levels=None if self.rank is None else np.concatenate(self.levels),
            unordered=tuple(self.unordered),
            left_heads=tuple(sorted(self.left_heads)),
        )


def encode(
    comparisons: Sequence[Comparison],
    encoder: TextEncoder,
    *,
    weights: Sequence[float] | None = None,
    heads: tuple[str, ...] = (MAIN_HEAD,),
    rank: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Examples, EncodingCounts]:
    """Encode every reply once.

    Args:
        weights: what each comparison counts in the loss; 1 by default.
        heads: whose labels to keep.
        rank: derive rankings that hold for this many replies at least; None derives none.
        progress: called with how many comparisons are done, of how many.

    Raises:
        BadText: a text that cannot be encoded.
    """
    outer = [1.0] * len(comparisons) if weights is None else weights
    counts, builder = EncodingCounts(comparisons=len(comparisons)), _Builder(heads, rank)
    for first in range(0, len(comparisons), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        encoded = _encode_chunk(comparisons[chunk], encoder)
        for place, (comparison, rows) in enumerate(zip(comparisons[chunk], encoded, strict=True), start=first):
            wanted = preferences_of(comparison, heads)
            preferences = _between_distinct(wanted, rows)
            counts.add(comparison, rows, wanted, preferences, heads)
            counts.comparisons_with_control_strings += any(
                encoder.holds_control_strings(comparison.prompt, reply) for reply in comparison.replies
            )
            builder.left_heads.update(_heads_of(comparison).difference(heads))
            if preferences:
                builder.add(comparison, rows, wanted, preferences, outer[place], place)
        progress(min(first + _CHUNK, len(comparisons)), len(comparisons))
    return builder.build(), counts


def _of_head(preferences: OfReplies, head: str) -> OfReplies:
    if isinstance(preferences, RankedPairs):
        return preferences if preferences.head == head else ()
    return tuple(preference for preference in preferences if preference.head == head)


def _written(groups: tuple[OfReplies, ...], weights: tuple[float, ...]) -> Iterator[str]:
    """`repr((groups, weights))` in parts, a long ranking written as its pairs."""
    yield "(("
    for number, group in enumerate(groups):
        yield ", " if number else ""
        yield from _written_pairs(group) if isinstance(group, RankedPairs) else [repr(group)]
    yield f"{',' if len(groups) == 1 else ''}), {weights!r})"


def _written_pairs(pairs: RankedPairs) -> Iterator[str]:
    rest = f"weight=1.0, margin=0.0, strength=None, head={pairs.head!r})"
    three = zip(*(column.tolist() for column in pairs.arrays()), strict=True)
    yield "("
    for first in range(0, len(pairs), _PAIRS):
        some = islice(three, _PAIRS)
        texts = [f"Preference(winner={a}, loser={b}, probability={0.5 if tie else 1.0}, {rest}" for a, b, tie in some]
        yield f"{', ' if first else ''}{', '.join(texts)}"
    yield f"{',' if len(pairs) == 1 else ''})"


def _heads_of(comparison: Comparison) -> set[str]:
    return heads_of(comparison.preferences) | {rated.head for rated in comparison.ratings}


def _rating_table(comparison: Comparison, heads: Sequence[str]) -> Float32[np.ndarray, "K H"]:
    table = np.full((len(comparison.replies), len(heads)), np.nan, np.float32)
    for rated in comparison.ratings:
        if rated.head in heads:
            table[:, heads.index(rated.head)] = [np.nan if value is None else value for value in rated.values]
    return table


def _encode_chunk(comparisons: Sequence[Comparison], encoder: TextEncoder) -> list[list[Row]]:
    rows = iter(
        encoder.encode_pairs([(comparison.prompt, reply) for comparison in comparisons for reply in comparison.replies])
    )
    return [[next(rows) for _ in comparison.replies] for comparison in comparisons]


def _between_distinct(preferences: OfReplies, rows: Sequence[Row]) -> OfReplies:
    """The preferences between rows that still differ: equal rows score alike whatever the model learns."""
    distinct, places = distinct_rows(rows)
    if len(distinct) == len(rows):
        return preferences
    return tuple(preference for preference in preferences if places[preference.winner] != places[preference.loser])


def _boundaries(sizes: Sequence[int]) -> Int64[np.ndarray, " M"]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
