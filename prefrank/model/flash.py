"""Attention of a whole packed batch in one kernel call: what a GPU runs instead of a loop over groups of rows.

The packed Triton kernels of disentangled-flash compute DeBERTa's three terms (c2c, c2p, p2c), or BERT's one, forward
and backward, with dropout inside the kernel. They are checked against `disentangled.py` and `bert.py` on a CPU, through
Triton's interpreter; their speed on a GPU is not measured.

The last layer asks for each row's first token alone. The kernels have no such form, so the other queries are zeros
there and their results are dropped. The kernels index with 32 bits, which limits the tokens of a batch: beyond that
they would read wrong memory, so it is an error here.

Nothing falls back to another path: what cannot run is an error that says what is missing (`obstacle` says so ahead).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from prefrank.errors import BadInput

HEAD_WIDTHS = (32, 64, 128)
PACKAGES = {
    "disentangled_flash": "pip install 'prefrank[gpu]'",
    "triton": "it comes with torch's builds for CUDA",
}


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Where the N rows of a packed batch lie.

    Args:
        firsts: index of each row's first token.
        starts: row n is tokens starts[n] to starts[n + 1].
        longest: tokens of the longest row.
    """

    firsts: Int64[Tensor, " N"]
    starts: Int32[Tensor, " N+1"]
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Which rows of DeBERTa's relative table a batch's distances read: the kernels multiply those R alone.

    Args:
        table_rows: row of the table behind each slot.
        by_distance: slot of each distance from 1 - longest to longest - 1.
        band: which distances have a slot of their own, for the backward kernels; the package's.
        columns: entries per token and head of the backward kernels' buffers.
    """

    table_rows: Int64[Tensor, " R"]
    by_distance: Int32[Tensor, " d"]
    band: Any
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """What is used of disentangled-flash.

    Args:
        attend: differentiable attention over packed rows, heads first: [H, T, d] three times -> [T, H d].
        band: `Slots.band` and `Slots.columns` from `Slots.by_distance` on the CPU.
        tiles: the kernels' block sizes for a query [H, T, d], the number of rows and the longest, as arguments of
            `attend`.
    """

    attend: Callable[..., Tensor]
    band: Callable[[Tensor, torch.device], tuple[Any, int]]
    tiles: Callable[[Tensor, int, int], dict[str, Any]]


def obstacle(*, device: torch.device, head_width: int) -> str | None:
    """Why the kernels cannot run a model here, as the end of a sentence; None where they can.

    Args:
        head_width: of one attention head.
    """
    if device.type != "cuda":
        return f"it runs on a GPU and the model is on {device}; use device='cuda' or kernels='torch'"
    for package, remedy in PACKAGES.items():
        if find_spec(package) is None:
            return f"it needs the package {package}, which is not installed; {remedy}"
    if head_width not in HEAD_WIDTHS:
        return f"it takes heads 32, 64 or 128 wide and the model's are {head_width}; use kernels='torch'"
    return None


def lay_rows(starts: Int64[np.ndarray, " edges"], device: torch.device) -> PackedRows:
    """The rows of a batch, from its `Batch.starts` [N + 1], on a device."""
    return PackedRows(
        firsts=torch.tensor(starts[:-1], device=device),
        starts=torch.tensor(starts, dtype=torch.int32, device=device),
        longest=int(np.diff(starts).max()),
    )


def lay_slots(order: Int64[Tensor, " D"], device: torch.device) -> Slots:
    """The slots of a batch on a device.

    Args:
        order: the table's row for each distance from -longest to longest, never falling, on the CPU.

    Raises:
        BadInput: disentangled-flash is not installed.
    """
    used, by_distance = order[1:-1].unique_consecutive(return_inverse=True)
    # cuBLAS is fast where a row of scores is a multiple of 16 bytes: the last slot is repeated, and never read again.
    used = torch.cat([used, used[-1:].expand(-len(used) % 8)])
    slots = by_distance.to(torch.int32)
    band, columns = _kernels().band(slots, device)
    return Slots(used.to(device), slots.to(device), band, columns)


def attend(
    query: Float[Tensor, "M D"],
    key: Float[Tensor, "T D"],
    value: Float[Tensor, "T D"],
    *,
    num_heads: int,
    rows: PackedRows,
    dropout: float,
    slots: Slots | None = None,
    position_keys: Float[Tensor, "S D"] | None = None,
    position_queries: Float[Tensor, "S D"] | None = None,
) -> Float[Tensor, "M D"]:
    """Attention inside each row, with a query for every token (M = T) or for each row's first (M = N).

    All in float32 (no TF32), bfloat16 or float16; forward and backward.

    Args:
        query: with the scale of the scores in it, as in `position_queries`.
        dropout: rate of dropped attention weights.
        slots: of the batch, where there are position terms.
        position_keys: what queries read of the relative table (c2p), after the layer's projection.
        position_queries: what reads keys of the relative table (p2c), after the layer's projection.

    Raises:
        BadInput: more tokens than the kernels can index, or disentangled-flash is not installed.
    """
    kernels, tokens, firsts_only = _kernels(), len(key), len(query) < len(key)
    if firsts_only:
        query = query.new_zeros(key.shape).index_copy(0, rows.firsts, query)
    q, k, v = (_by_head(x, num_heads) for x in (query, key, value))
    keys = queries = None
    if slots is not None:
        _check_size(tokens, num_heads, slots)
        keys = None if position_keys is None else _by_head(position_keys[slots.table_rows], num_heads)
        queries = None if position_queries is None else _by_head(position_queries[slots.table_rows], num_heads)
        by_distance, band = slots.by_distance, slots.band
    else:  # asked for all the same, and not read
        by_distance, band = rows.starts.new_zeros(2 * rows.longest - 1), None
    seen = kernels.attend(
        *(q, k, v, keys, queries, by_distance, rows.starts),
        max_seqlen=rows.longest,
        score_scale=1.0,
        strict_fp32=True,
        dropout_p=dropout,
        gradient_band=band,
        **kernels.tiles(q, len(rows.firsts), rows.longest),
    )
    return seen[rows.firsts] if firsts_only else seen


def _by_head(x: Float[Tensor, "T D"], num_heads: int) -> Float[Tensor, "H T d"]:
    return x.unflatten(-1, (num_heads, -1)).transpose(0, 1)


def _check_size(tokens: int, num_heads: int, slots: Slots) -> None:
    limit = (2**31 - 1) // (num_heads * max(len(slots.table_rows), slots.columns))
    if tokens > limit:
        raise BadInput(
            f"a batch has {tokens:,} tokens and the GPU's kernels take {limit:,} with rows of this length;"
            f" set max_tokens to at most {limit}"
        )


@cache
def _kernels() -> Kernels:
    """disentangled-flash, imported when first needed: it imports Triton."""
    try:
        # Below the package's own modules, which bring their own projections: so pyproject.toml pins the version.
        from disentangled_flash.position import gradient_band
        from disentangled_flash.training._kernels import training_attention_packed
        from disentangled_flash.tuning import DeviceResources, heuristic_config
    except ImportError as error:
        raise BadInput(
            f"attention in one kernel call needs disentangled-flash 1.1.1 ({error}); pip install 'prefrank[gpu]'"
        ) from error

    def band(slots: Tensor, device: torch.device) -> tuple[Any, int]:
        band = gradient_band(slots, device)
        return band, len(band.column_slots)

    def tiles(query: Tensor, num_rows: int, longest: int) -> dict[str, Any]:
        phases = {"forward_config": "training_forward", "dq_config": "backward_dq", "dkv_config": "backward_dkv"}
        return {
            name: heuristic_config(
                phase=phase,
                sequence_length=longest,
                head_dim=query.shape[-1],
                dtype=str(query.dtype).removeprefix("torch."),
                batch_heads=num_rows * len(query),
                resources=DeviceResources.current(query.device),
            )
            for name, phase in phases.items()
        }

    return Kernels(training_attention_packed, band, tiles)
