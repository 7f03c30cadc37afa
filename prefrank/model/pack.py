"""A batch on the model's device, with what attention and embeddings need to know of its rows.

Rows of equal length that stand next to each other form a group: they are one plain tensor to attention, so
nothing is ever padded or masked. Batches planned by length have few groups; any other order is right too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from prefrank.errors import BadInput
from prefrank.model.flash import PackedRows, lay_rows
from prefrank.types import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """N rows in G groups, T tokens.

    Args:
        ids: token ids.
        positions: index of each token inside its row.
        types: token type of each token.
        firsts: index of each row's first token.
        group_rows: rows of each group.
        group_tokens: tokens of each group.
        fused: the rows for attention in one kernel call; None: a loop over the groups.
    """

    ids: Int64[Tensor, " T"]
    positions: Int64[Tensor, " T"]
    types: Int64[Tensor, " T"]
    firsts: Int64[Tensor, " N"]
    group_rows: list[int]
    group_tokens: list[int]
    fused: PackedRows | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(tokens // rows for tokens, rows in zip(self.group_tokens, self.group_rows, strict=True))


def pack_batch(
    batch: Batch,
    *,
    vocab_size: int,
    max_positions: int | None,
    device: torch.device,
    fused: bool = False,
    types: int = 2,
) -> Pack:
    """Check a batch against the model's limits and move it to the device.

    Raises:
        BadInput: a row longer than the model's position table, or a token id it has no embedding for.
    """
    check_batch(batch, vocab_size=vocab_size, max_positions=max_positions, types=types)
    lengths = np.diff(batch.starts)
    positions = np.arange(len(batch.ids)) - np.repeat(batch.starts[:-1], lengths)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(lengths)) + 1, [len(lengths)]])
    return Pack(
        ids=torch.tensor(batch.ids, device=device),
        positions=torch.tensor(positions, device=device),
        types=torch.tensor(batch.types, dtype=torch.long, device=device),
        firsts=torch.tensor(batch.starts[:-1], device=device),
        group_rows=np.diff(edges).tolist(),
        group_tokens=np.diff(batch.starts[edges]).tolist(),
        fused=lay_rows(batch.starts, device) if fused else None,
    )


def check_batch(batch: Batch, *, vocab_size: int, max_positions: int | None, types: int = 2) -> None:
    """Raise BadInput for a row longer than the model's position table, or a token id or type it has no embedding for.

    Args:
        types: how many token types the model takes: 0 in the prompt, 1 in the reply, others in few models.
    """
    lengths = np.diff(batch.starts)
    whole = len(lengths) and batch.starts[0] == 0 and batch.starts[-1] == len(batch.ids) == len(batch.types)
    if not whole or lengths.min() < 1:
        raise BadInput("a batch has no rows, empty ones, or ends that are not those of its tokens; plan it again")
    longest = lengths.max() if batch.tree is None else batch.tree.lengths.max()
    if max_positions is not None and longest > max_positions:
        raise BadInput(f"a row has {longest} tokens, the model takes {max_positions}; encode with a max_length")
    if batch.ids.max() >= vocab_size or batch.ids.min() < 0:
        raise BadInput(
            f"token ids reach {batch.ids.max()}, the model knows 0 to {vocab_size - 1}; is this its own tokenizer?"
        )
    if batch.types.max() >= types or batch.types.min() < 0:
        raise BadInput(
            f"token types reach {batch.types.max()}; wanted 0 to {types - 1}: 0 in the prompt and 1 in the reply"
        )
