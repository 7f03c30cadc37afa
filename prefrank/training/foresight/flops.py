"""Floating point operations of a run, by formula: what to divide by what a device does to have its time.

A row of L tokens takes, forward, in each layer

    2 P L + 4 D (1 + R) L^2

with P numbers in the layer's matrices, width D, and R relative position terms (c2p and p2c of DeBERTa, else 0): two
operations a multiplication, L^2 for the scores and for what they weigh (Kaplan et al. 2020, arXiv 2001.08361, table 1).
The backward pass takes as much for the gradients of inputs, from the lowest trained layer up, and as much again for
those of trained weights and of attention. What is computed twice, by gradient checkpointing or because no graph was
kept, counts twice. Embeddings and heads are left out; the last layer counts as the others do, though only first tokens
go through all of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from prefrank.model import Network, parameters_by_depth
from prefrank.model.families.disentangled import DisentangledAttention


@dataclass(frozen=True, slots=True)
class RowFlops:
    """Operations of a row of L tokens: `tokens` L + `pairs` L^2, of a forward pass and of what training adds.

    Args:
        tokens, pairs: of the forward pass.
        training_tokens, training_pairs: of forward and backward pass together.
    """

    tokens: int
    pairs: int
    training_tokens: int
    training_pairs: int

    def forward(self, lengths: Int64[np.ndarray, " N"]) -> int:
        """Operations to score rows of these lengths."""
        return self.tokens * int(lengths.sum()) + self.pairs * int((lengths.astype(np.int64) ** 2).sum())

    def training(self, lengths: Int64[np.ndarray, " N"]) -> int:
        """Operations of a forward and a backward pass over rows of these lengths."""
        squares = int((lengths.astype(np.int64) ** 2).sum())
        return self.training_tokens * int(lengths.sum()) + self.training_pairs * squares


def row_flops(network: Network) -> RowFlops:
    """What a network's rows cost, with the parameters that are trained now."""
    depths = parameters_by_depth(network)
    parameters = dict(network.named_parameters())
    trained_from = next(
        (depth for depth, names in enumerate(depths) if any(parameters[name].requires_grad for name in names)), 0
    )
    width = int(network.config.get("hidden_size") or network.config.get("n_embd") or 0)
    modules = network.named_modules()
    terms = next((len(module.terms) for _, module in modules if isinstance(module, DisentangledAttention)), 0)
    attention = 4 * width * (1 + terms)
    again = 1 if network.gradient_checkpointing else 0
    tokens = pairs = training_tokens = training_pairs = 0
    for depth, names in enumerate(depths[1:-1], start=1):
        matrices = [parameters[name] for name in names if parameters[name].ndim > 1]
        inner = 2 * sum(matrix.numel() for matrix in matrices)
        changed = 2 * sum(matrix.numel() for matrix in matrices if matrix.requires_grad)
        slopes = depth >= trained_from
        tokens, pairs = tokens + inner, pairs + attention
        training_tokens += inner * (1 + slopes * (1 + again)) + changed
        training_pairs += attention * (1 + slopes * (2 + again))
    return RowFlops(tokens, pairs, training_tokens, training_pairs)
