"""How large a batch is, in the three numbers that its memory and its time go by."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.model.segments import segments_of
from prefrank.types import Batch, Causal


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a batch, or of several.

    Args:
        tokens: that are computed; those that rows share count once.
        keys: that are read: of each segment of a tree, its own and those of the tokens before it.
        pairs: of a token and one that it sees.
    """

    tokens: int
    keys: int
    pairs: int

    def __add__(self, other: "Extent") -> "Extent":
        return Extent(self.tokens + other.tokens, self.keys + other.keys, self.pairs + other.pairs)

    def kept_over(self, other: "Extent") -> float:
        """How many times as much of it is kept for a backward pass as of another at most: of tokens, or of keys."""
        return max(self.tokens / other.tokens, self.keys / other.keys)


def extent_of(batch: Batch, causal: Causal | None) -> Extent:
    """The size of a batch of a network that reads from left to right (`causal`), or of one that does not."""
    if causal is None:
        return extent_apart(np.diff(batch.starts), causal)
    segments = segments_of(batch, causal)
    sizes, bases = np.diff(segments.starts), segments.bases
    pairs = sizes * bases + sizes * (sizes + 1) // 2
    return Extent(len(segments.ids), int((bases + sizes).sum()), int(pairs.sum()))


def extent_apart(lengths: Int64[np.ndarray, " N"], causal: Causal | None) -> Extent:
    """The size of rows of these lengths that share nothing."""
    tokens, squares = int(lengths.sum()), int((lengths.astype(np.int64) ** 2).sum())
    return Extent(tokens, tokens, squares if causal is None else (squares + tokens) // 2)
