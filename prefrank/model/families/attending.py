"""Attention of a decoder over the segments of a batch, in PyTorch.

A segment's queries stand at the lower right of what they read: the keys of its ancestors and its own. These are
gathered once a layer for all segments. On a CPU queries then run in blocks, each over the keys up to its own end, which
leaves out most of what would be masked. The gather's backward pass adds up in float32: of a beginning that many rows
share, rounding in between would be lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from prefrank.model.heads import widened
from prefrank.model.segments import Segments

# On Zen 5, segments of 256 to 512 tokens take 25 to 30 % less than whole, forward and backward; 128 saves half of that.
CPU_BLOCK = 64
BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of attention.

    Args:
        queries: how many.
        first, end: which of the segment's keys they read.
        mask: [queries, keys], what is added to the scores; None: all keys are seen, or, where there are as many as
            queries, each by those from its own place on.
    """

    queries: int
    first: int
    end: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the queries of a layer read, segment by segment.

    Args:
        ends: the tokens that ask; None: all.
        places: the tokens whose keys and values the segments read, one segment after the other; None: all, as they are.
        queries: of each segment.
        keys: of each segment.
        calls: of each segment, in the order of its queries.
    """

    ends: Int64[Tensor, " N"] | None
    places: Int64[Tensor, " G"] | None
    queries: list[int]
    keys: list[int]
    calls: list[list[Call]]


def read_all(segments: Segments, window: int | None, *, like: Tensor) -> Reading:
    """What the tokens of a batch read in a layer.

    Args:
        window: how many tokens up to its own a query sees; None: all.
        like: a hidden state, for device and type.
    """
    sizes, bases = np.diff(segments.starts).tolist(), segments.bases.tolist()
    # Of a segment's first query the window holds itself and the `window - 1` tokens before it.
    skipped = [0 if window is None else max(0, base - window + 1) for base in bases]
    places = [path[skip:] for path, skip in zip(_paths(segments), skipped, strict=True)]
    most = min(CPU_BLOCK if like.device.type == "cpu" else BLOCK, max(sizes))
    longest = max(map(len, places))
    mask = _Mask(most, longest if window is None else min(longest, most + window), window, like)
    return Reading(
        ends=None,
        places=torch.from_numpy(np.concatenate(places)).to(like.device) if (segments.parents >= 0).any() else None,
        queries=sizes,
        keys=[len(part) for part in places],
        calls=[
            [
                Call(queries, first, end, mask.of(queries, end - first))
                for queries, first, end in _blocks(size, base - skip, window, most)
            ]
            for size, base, skip in zip(sizes, bases, skipped, strict=True)
        ],
    )


def read_ends(segments: Segments, window: int | None, *, like: Tensor) -> Reading:
    """What scored tokens read in a layer; as `read_all`."""
    paths = _paths(segments)
    leaves = np.searchsorted(segments.starts, segments.ends, side="right") - 1
    places = [paths[leaf][-window if window else 0 :] for leaf in leaves.tolist()]
    return Reading(
        ends=torch.from_numpy(segments.ends).to(like.device),
        places=torch.from_numpy(np.concatenate(places)).to(like.device),
        queries=[1] * len(places),
        keys=[len(part) for part in places],
        calls=[[Call(1, 0, len(part), None)] for part in places],
    )


def _paths(segments: Segments) -> list[Int64[np.ndarray, " L"]]:
    """Of each segment, all tokens of its rows up to its end."""
    paths: list[Int64[np.ndarray, " L"]] = []
    edges = segments.starts.tolist()
    for start, end, parent in zip(edges, edges[1:], segments.parents.tolist(), strict=False):
        own = np.arange(start, end)
        paths.append(own if parent < 0 else np.concatenate([paths[parent], own]))
    return paths


def _blocks(size: int, before: int, window: int | None, most: int) -> Iterator[tuple[int, int, int]]:
    """A segment in blocks: queries of each, and the first and the end of the keys that they read, of which `before`
    stand before the segment.
    """
    for start in range(before, before + size, most):
        end = min(start + most, before + size)
        yield end - start, 0 if window is None else max(0, start - window + 1), end


class _Mask:
    """Masks for queries at the lower right: parts of one, since what a query sees depends on distances alone.

    Args:
        queries, keys: most of a mask.
    """

    def __init__(self, queries: int, keys: int, window: int | None, like: Tensor) -> None:
        self.window, self.before = window, keys
        places = torch.arange(-keys, queries, device=like.device)
        ahead = places - torch.arange(queries, device=like.device)[:, None]
        unseen = ahead > 0 if window is None else (ahead > 0) | (ahead <= -window)
        self.whole = torch.zeros(unseen.shape, dtype=like.dtype, device=like.device).masked_fill_(unseen, -torch.inf)

    def of(self, queries: int, keys: int) -> Tensor | None:
        """The mask of so many queries, of which the last stands at the last of so many keys."""
        if queries == 1 or (queries == keys and (self.window is None or keys <= self.window)):
            return None
        first = self.before - (keys - queries)
        return self.whole[:queries, first : first + keys]


def attend(
    query: Float[Tensor, "M H d"],
    key: Float[Tensor, "T G d"],
    value: Float[Tensor, "T G d"],
    reading: Reading,
    *,
    dropout: float,
) -> Float[Tensor, "M H d"]:
    """Scaled dot-product attention; head h reads keys and values of group h // (H / G)."""
    if reading.places is not None:
        key, value = _Gather.apply(key, reading.places), _Gather.apply(value, reading.places)
    grouped = query.shape[1] != key.shape[1]
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
    parts = (query.split(reading.queries, 2), key.split(reading.keys, 2), value.split(reading.keys, 2))
    seen = []
    for queries, keys, values, calls in zip(*parts, reading.calls, strict=True):
        blocks = queries.split([call.queries for call in calls], 2) if len(calls) > 1 else [queries]
        for block, call in zip(blocks, calls, strict=True):
            seen.append(
                F.scaled_dot_product_attention(
                    block,
                    keys[:, :, call.first : call.end],
                    values[:, :, call.first : call.end],
                    attn_mask=call.mask,
                    dropout_p=dropout,
                    is_causal=call.mask is None and call.queries > 1,
                    enable_gqa=grouped,
                )
            )
    return torch.cat(seen, 2)[0].transpose(0, 1)


class _Gather(torch.autograd.Function):
    """Rows of x; slopes of one that was taken several times are added up in float32 at least. torch's own does so on
    a CPU alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        wide = widened(slope)
        sums = wide.new_zeros(ctx.rows, *slope.shape[1:]).index_add_(0, places, wide)
        return sums.to(slope.dtype), None
