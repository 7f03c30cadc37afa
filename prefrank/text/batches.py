"""Rows to packed batches under a token budget.

Rows are sorted by length so that those of one batch are alike (attention runs per group of equal lengths); each batch
remembers where its rows stood, so the caller's order comes back. A score does not depend on the plan.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from prefrank.errors import BadInput
from prefrank.types import Batch, Row


def plan_batches(rows: Sequence[Row], *, max_tokens: int) -> list[Batch]:
    """Pack every row once, shortest first, at most `max_tokens` tokens a batch; a longer row stands alone."""
    if max_tokens < 1:
        raise BadInput(f"max_tokens is {max_tokens}; wanted at least 1 token a batch")
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
