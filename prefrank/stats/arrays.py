"""What statistics of millions of values do with arrays: distinct values, groups, and blocks that fit in a cache."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64, Integer

_BLOCK = 1 << 18


def in_blocks(count: int) -> Iterator[slice]:
    """0 to count in parts small enough that what is computed of each stays in the processor's cache."""
    return (slice(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK))


def distinct(values: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " d"]:
    """The different values, ascending: `np.unique` by counting or sorting, as its hashes take seconds for millions."""
    if len(values) and values.min() >= 0 and values.max() < len(values):
        return np.flatnonzero(np.bincount(values)).astype(values.dtype, copy=False)
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def in_groups(
    number: Integer[np.ndarray, " P"], weight: Float64[np.ndarray, " P"]
) -> Iterator[tuple[int, Int64[np.ndarray, " n"]]]:
    """Each number of what weighs anything, ascending, with the places that have it, in their order."""
    kept = np.flatnonzero(weight > 0)
    own = number[kept]
    if len(own) and own.min() >= 0 and own.max() < 1 << 15:
        own = own.astype(np.int16)  # which numpy sorts by counting
    order = np.argsort(own, kind="stable")
    kept, own = kept[order], own[order]
    starts = np.flatnonzero(np.diff(own, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(own)], strict=False):
        yield int(own[start]), kept[start:end]
