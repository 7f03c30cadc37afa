"""Rotary positions (Su et al. 2021, arXiv 2104.09864): the angles by which a decoder turns its queries and keys."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """One kind of rotary positions, as config.json asks for it.

    Args:
        frequencies: [r] radians a position of each pair of channels; channel c turns with channel c + r.
        fixed_until, by_length: which rows have tables of their own, as in `Causal`.
    """

    frequencies: Float32[np.ndarray, " r"]
    fixed_until: int | None = None
    by_length: bool = False

    def angles(
        self, positions: Int64[np.ndarray, " T"], lengths: Int64[np.ndarray, " T"]
    ) -> tuple[Float32[torch.Tensor, "T r"], Float32[torch.Tensor, "T r"]]:
        """Cosines and sines for tokens at these positions, of whole rows of these lengths, on the CPU."""
        turned = torch.from_numpy(np.multiply.outer(positions.astype(np.float32), self.frequencies))
        return turned.cos(), turned.sin()
