"""The segments of a batch as a network that reads from left to right needs them: where each stands in its rows.

A batch without a tree is one in which no rows share anything: its rows become segments of their own here, up to the
tokens at which they are scored.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.errors import BadInput
from prefrank.types import Batch, Causal, Tree


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """S segments of T distinct tokens, at whose ends N rows are scored.

    Args:
        ids: token ids.
        positions: place of each token in its rows.
        starts: segment s is tokens starts[s] to starts[s + 1].
        parents: the segment that each one goes on from, which stands before it; -1 where rows begin.
        bases: tokens of a segment's rows that stand before it: position of its first token.
        ends: index among the T tokens of the one that each row is scored at.
        lengths: of each segment, the tokens of a whole row that it belongs to, for its table of positions
            (`Causal.table`); all of its rows have the same one.
    """

    ids: Int64[np.ndarray, " T"]
    positions: Int64[np.ndarray, " T"]
    starts: Int64[np.ndarray, " edges"]
    parents: Int64[np.ndarray, " S"]
    bases: Int64[np.ndarray, " S"]
    ends: Int64[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " S"]


def segments_of(batch: Batch, causal: Causal) -> Segments:
    """The segments of a batch, whether it was planned with a tree or not.

    Raises:
        BadInput: a tree whose parents do not stand before their children, or whose rows have two tables of positions.
    """
    if batch.tree is None:
        batch = _apart(batch, causal)
    tree = batch.tree
    assert tree is not None
    sizes = np.diff(batch.starts)
    count = len(sizes)
    if len(tree.parents) != count or (tree.parents >= np.arange(count)).any() or (tree.parents < -1).any():
        raise BadInput("a batch's segments do not stand after those that they go on from; plan it again")
    if not len(tree.leaves) or tree.leaves.min() < 0 or tree.leaves.max() >= count:
        raise BadInput("a batch has no rows, or rows of segments that it does not have; plan it again")
    bases = np.zeros(count, np.int64)
    for segment, parent in enumerate(tree.parents.tolist()):
        if parent >= 0:
            bases[segment] = bases[parent] + sizes[parent]
    return Segments(
        ids=batch.ids,
        positions=np.arange(len(batch.ids)) - np.repeat(batch.starts[:-1] - bases, sizes),
        starts=batch.starts,
        parents=tree.parents,
        bases=bases,
        ends=batch.starts[tree.leaves + 1] - 1,
        lengths=_lengths(tree, causal),
    )


def _lengths(tree: Tree, causal: Causal) -> Int64[np.ndarray, " S"]:
    """Of each segment, the length of a row that it is in."""
    lengths = np.zeros(len(tree.parents), np.int64)
    tables = np.full(len(tree.parents), -1, np.int64)
    for leaf, length in zip(tree.leaves.tolist(), tree.lengths.tolist(), strict=True):
        table, segment = causal.table(length), leaf
        while segment >= 0 and tables[segment] != table:
            if tables[segment] >= 0:
                raise BadInput("rows with two tables of positions share tokens; plan the batch again")
            lengths[segment], tables[segment] = length, table
            segment = int(tree.parents[segment])
    return lengths


def _apart(batch: Batch, causal: Causal) -> Batch:
    """A batch in which every row is a segment, without the tokens after the one it is scored at."""
    lengths = np.diff(batch.starts)
    ends = scored_places(batch, causal.padding) + 1
    kept = np.arange(len(batch.ids)) - np.repeat(batch.starts[:-1], lengths) < np.repeat(ends, lengths)
    count = len(lengths)
    tree = Tree(parents=np.full(count, -1, np.int64), leaves=np.arange(count), lengths=lengths)
    starts = np.concatenate([[0], np.cumsum(ends)]).astype(np.int64)
    return Batch(ids=batch.ids[kept], types=batch.types[kept], rows=batch.rows, starts=starts, tree=tree)


def scored_places(batch: Batch, padding: int | None) -> Int64[np.ndarray, " N"]:
    """Index inside each row of the token that a decoder is scored at: the rightmost that is not `padding`, 0 where all
    are, as in transformers; with None the last. Of a batch without a tree.
    """
    causal = Causal(padding=padding)
    return np.array([causal.scored_length(ids) - 1 for ids in np.split(batch.ids, batch.starts[1:-1])], np.int64)
