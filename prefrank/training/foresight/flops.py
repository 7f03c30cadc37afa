"""Floating point operations of a run, by formula: what to divide by what a device does to have its time.

A row of L tokens takes, forward, in each layer

    2 P L + 4 D (1 + R) L^2

with P numbers in the layer's matrices, D in a token's queries, and R relative position terms (c2p and p2c of DeBERTa,
else 0): two operations a multiplication, L^2 for the scores and for what they weigh (Kaplan et al. 2020, arXiv
2001.08361, table 1). Where a network reads from left to right, tokens that rows share count once, and L^2 is the number
of pairs of a token and one that it sees: half as many, or what a segment of a tree sees of those before it.
The backward pass takes as much for the gradients of inputs, from the lowest trained layer up, and as much again for
those of trained weights and of attention. What is computed twice, by gradient checkpointing or because no graph was
kept, counts twice. Embeddings and heads are left out; the last layer counts as the others do, though only first tokens
go through all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefrank.model import Network, parameters_by_depth
from prefrank.model.families.disentangled import DisentangledAttention
from prefrank.training.loop.extent import Extent


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of an extent: `tokens` a token and `pairs` a pair, of a forward pass and with what training adds.

    Args:
        tokens, pairs: of the forward pass.
        training_tokens, training_pairs: of forward and backward pass together.
    """

    tokens: int
    pairs: int
    training_tokens: int
    training_pairs: int

    def forward(self, extent: Extent) -> int:
        """Operations to score so much."""
        return self.tokens * extent.tokens + self.pairs * extent.pairs

    def training(self, extent: Extent) -> int:
        """Operations of a forward and a backward pass."""
        return self.training_tokens * extent.tokens + self.training_pairs * extent.pairs


def flops_of(network: Network) -> Flops:
    """What a network's passes cost, with the parameters that are trained now."""
    depths = parameters_by_depth(network)
    parameters = dict(network.named_parameters())
    trained_from = next(
        (depth for depth, names in enumerate(depths) if any(parameters[name].requires_grad for name in names)), 0
    )
    width = _query_width(network.config)
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
    return Flops(tokens, pairs, training_tokens, training_pairs)


def _query_width(config: Mapping[str, Any]) -> int:
    """Numbers in the queries of a token, all heads together; 0 if the config does not say."""
    width, heads = config.get("head_dim"), config.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int):
        return width * heads
    return int(config.get("hidden_size") or config.get("n_embd") or 0)
