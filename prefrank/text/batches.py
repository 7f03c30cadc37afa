"""Rows to packed batches under a token budget.

Rows are sorted by length so that those of one batch are alike (attention runs per group of equal lengths). For a
network that reads from left to right they stand together by how they begin instead, and each beginning is in a batch
once (`sharing.py`). Each batch remembers where its rows stood, so the caller's order comes back. A score does not
depend on the plan.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from prefrank.errors import BadInput
from prefrank.text.sharing import GrowingTree, Ordered, put_in_order
from prefrank.types import Batch, Causal, Row


def plan_batches(rows: Sequence[Row], *, max_tokens: int, causal: Causal | None = None) -> list[Batch]:
    """Pack every row once, shortest first, at most `max_tokens` tokens a batch; a longer row stands alone.

    Args:
        causal: of a network that reads from left to right: what rows begin with in common is in a batch, and counts,
            once. Batches come by their longest rows then.
    """
    if max_tokens < 1:
        raise BadInput(f"max_tokens is {max_tokens}; wanted at least 1 token a batch")
    if causal is not None and rows:
        return _plan_trees(put_in_order(rows, causal), max_tokens)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n].ids))
    batches: list[Batch] = []
    group: list[int] = []
    tokens = 0
    for n in order:
        length = len(rows[n].ids)
        if group and tokens + length > max_tokens:
            batches.append(pack(rows, group))
            group, tokens = [], 0
        group.append(n)
        tokens += length
    return [*batches, pack(rows, group)] if group else batches


def _plan_trees(ordered: Ordered, max_tokens: int) -> list[Batch]:
    """Batches of rows that stand together, each as full as it may be; where one is full it ends before the row of its
    later half that has least in common with the one before it, so that few beginnings are in two batches.
    """
    batches: list[Batch] = []
    first, count = 0, len(ordered.ids)
    while first < count:
        tree = GrowingTree(ordered, first)
        sizes: list[int] = []
        while first + len(sizes) < count and tree.has_room(max_tokens):
            tree.add()
            sizes.append(tree.tokens)
        end = first + len(sizes)
        if end < count:
            half = first + 1 + int(np.searchsorted(sizes, tree.tokens / 2))
            late = ordered.common[half : end + 1][::-1]
            shorter = end - int(np.argmin(late)) if len(late) else end
            if shorter < end:
                end, tree = shorter, GrowingTree(ordered, first)
                for _ in range(first, end):
                    tree.add()
        batches.append(tree.batch())
        first = end
    return sorted(batches, key=_longest)


def _longest(batch: Batch) -> int:
    return int(batch.tree.lengths.max()) if batch.tree else 0


def distinct_rows(rows: Sequence[Row]) -> tuple[list[Row], Int64[np.ndarray, " N"]]:
    """The rows without repetitions, in order, and which of them each of the N rows is."""
    seen: dict[tuple[bytes, bytes], int] = {}
    places = [seen.setdefault((row.ids.tobytes(), row.types.tobytes()), len(seen)) for row in rows]
    firsts = dict(zip(reversed(places), reversed(rows), strict=True))
    return [firsts[place] for place in range(len(seen))], np.array(places, np.int64)


def pack(rows: Sequence[Row], chosen: Sequence[int]) -> Batch:
    """One batch of the chosen rows, in that order."""
    lengths = [len(rows[n].ids) for n in chosen]
    return Batch(
        ids=np.concatenate([rows[n].ids for n in chosen]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        types=np.concatenate([rows[n].types for n in chosen]),
        rows=np.array(chosen, np.int64),
    )
