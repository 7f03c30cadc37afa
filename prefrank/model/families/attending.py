"""Attention of a decoder over the segments of a batch, in PyTorch.

A segment's queries stand at the lower right of what they read: the keys of its ancestors and its own. These are
gathered once a layer for all segments, and each segment is one call of torch's attention. The gather's backward pass
adds up in float32: of a beginning that many rows share, rounding in between would be lost.
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
from prefrank.model.packed_encoder import Activation
from prefrank.model.segments import Segments

BLOCK = 512
"""Queries of one call that needs a mask, so that no mask is larger than that times its keys."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What each query of a layer reads, as calls of attention in the order of the queries.

    Args:
        ends: the tokens that ask; None: all.
        places: the tokens whose keys and values the calls read, one call after the other; None: all, as they are.
        queries: of each call.
        keys: of each call.
        masks: [queries, keys] of each call, what is added to its attention scores; None: all keys are seen, or as many
            as there are queries, by those that stand after them.
    """

    ends: Int64[Tensor, " N"] | None
    places: Int64[Tensor, " G"] | None
    queries: list[int]
    keys: list[int]
    masks: list[Tensor | None]


def read_segments(segments: Segments, window: int | None, *, like: Tensor, ends_only: bool) -> Reading:
    """What the tokens of a batch read in a layer.

    Args:
        window: how many tokens up to its own a query sees; None: all.
        like: a hidden state, for device and type.
        ends_only: only scored tokens ask.
    """
    paths = _paths(segments)
    if ends_only:
        leaves = np.searchsorted(segments.starts, segments.ends, side="right") - 1
        reads = [paths[leaf][-window if window else 0 :] for leaf in leaves.tolist()]
        calls = [(1, read, 0) for read in reads]
    else:
        calls = [
            call
            for path, base in zip(paths, segments.bases.tolist(), strict=True)
            for call in _calls(path, base, window)
        ]
    places = np.concatenate([read for _, read, _ in calls])
    whole = not ends_only and len(places) == len(segments.ids)
    masks = _masks(calls, window, like)
    return Reading(
        ends=torch.from_numpy(segments.ends).to(like.device) if ends_only else None,
        places=None if whole else torch.from_numpy(places).to(like.device),
        queries=[queries for queries, _, _ in calls],
        keys=[len(read) for _, read, _ in calls],
        masks=masks,
    )


def _paths(segments: Segments) -> list[Int64[np.ndarray, " L"]]:
    """Of each segment, all tokens of its rows up to its end."""
    paths: list[Int64[np.ndarray, " L"]] = []
    edges = segments.starts.tolist()
    for start, end, parent in zip(edges, edges[1:], segments.parents.tolist(), strict=False):
        own = np.arange(start, end)
        paths.append(own if parent < 0 else np.concatenate([paths[parent], own]))
    return paths


def _calls(
    path: Int64[np.ndarray, " L"], base: int, window: int | None
) -> Iterator[tuple[int, Int64[np.ndarray, " k"], int]]:
    """The calls of a segment: queries, the tokens that they read, and how many of these stand before the queries."""
    if base == 0 and (window is None or len(path) <= window):
        yield len(path), path, 0
        return
    for start in range(base, len(path), BLOCK):
        end = min(start + BLOCK, len(path))
        first = 0 if window is None else max(0, start - window + 1)
        yield end - start, path[first:end], start - first


def _masks(calls: list[tuple[int, Any, int]], window: int | None, like: Tensor) -> list[Tensor | None]:
    """The masks of calls: parts of one, since what a query sees depends on distances alone."""
    masked = [queries > 1 and (before > 0 or (window is not None and queries > window)) for queries, _, before in calls]
    if not any(masked):
        return [None] * len(calls)
    most = max(queries for (queries, _, _), needed in zip(calls, masked, strict=True) if needed)
    longest = max(before for (_, _, before), needed in zip(calls, masked, strict=True) if needed)
    ahead = torch.arange(-longest, most, device=like.device) - torch.arange(most, device=like.device)[:, None]
    hidden = ahead > 0 if window is None else (ahead > 0) | (ahead <= -window)
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
    return [
        mask[:queries, longest - before : longest + queries] if needed else None
        for (queries, _, before), needed in zip(calls, masked, strict=True)
    ]


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
    parts = zip(
        query.transpose(0, 1).split(reading.queries, dim=1),
        key.transpose(0, 1).split(reading.keys, dim=1),
        value.transpose(0, 1).split(reading.keys, dim=1),
        reading.masks,
        strict=True,
    )
    seen = [
        F.scaled_dot_product_attention(
            q[None],
            k[None],
            v[None],
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None and q.shape[1] > 1,
            enable_gqa=grouped,
        )[0]
        for q, k, v, mask in parts
    ]
    return torch.cat(seen, dim=1).transpose(0, 1)


class _Gather(torch.autograd.Function):
    """Rows of x; slopes of one that was taken several times are added up in float32 at least."""

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


def rotate(
    x: Float[Tensor, "M H d"], cosines: Float[Tensor, "M r"], sines: Float[Tensor, "M r"]
) -> Float[Tensor, "M H d"]:
    """Queries or keys turned by their positions: channel c with channel c + r; those from 2 r on stay."""
    half = cosines.shape[1]
    cosines, sines = cosines[:, None], sines[:, None]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return torch.cat([*(part.to(x.dtype) for part in turned), rest], dim=-1)


def gate(gated: Float[Tensor, "M W"], up: Float[Tensor, "M W"], activation: Activation) -> Float[Tensor, "M W"]:
    """activation(gated) * up."""
    return activation(gated) * up
