"""A trained network laid out for scoring: plain arrays in the order in which an engine reads them.

The module tree of a family (`families/`) is what torch runs, and the oracle. The kernels in C++ (`native_engine.py`)
read this instead; each family's `lay_out` makes it of the parts below. No weight is copied: every matrix is the
network's own tensor, so a model of 6 GB stays 6 GB. Only what depends on the weights alone is computed, once: the
projections of DeBERTa's relative positions, which transformers computes again in every layer of every batch.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from prefrank.model.distances import Buckets, Distances
from prefrank.model.heads import widened
from prefrank.model.integer_weights import QuantisedLinear
from prefrank.model.linear import Activation
from prefrank.model.packed_encoder import AddNorm, Intermediate
from prefrank.model.rope import Rope
from prefrank.types import Causal


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x W^T + b. Integer weights stand for `weight * scale[:, None]`, one scale per output."""

    weight: Tensor
    bias: Float[Tensor, " O"] | None
    scale: Float[Tensor, " O"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Layer normalization."""

    weight: Float[Tensor, " D"]
    bias: Float[Tensor, " D"]
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Words [V, E] with absolute positions [P, E] and token types [Y, E] where the model has them.

    Args:
        first_position: row of `positions` of a row's first token.
        typed: whether the reply's tokens take row 1 of `types`; else all take row 0.
        projection: from E to D, before the norm (`projected_first`, DeBERTa) or after it (ELECTRA).
    """

    words: Float[Tensor, "V E"]
    positions: Float[Tensor, "P E"] | None
    types: Float[Tensor, "Y E"] | None
    norm: Norm
    projection: Linear | None
    first_position: int
    typed: bool
    projected_first: bool


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One encoder layer. `position_keys` and `position_queries` are DeBERTa's relative embeddings [S, D] after this
    layer's projections: what queries read (c2p) and what reads the keys (p2c, with `Layout.scale` folded in). Of a
    quantized network they are int16, with a scale for each row and head.
    """

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm
    position_keys: Tensor | None = None
    position_queries: Tensor | None = None
    position_keys_scale: Float[Tensor, "S H"] | None = None
    position_queries_scale: Float[Tensor, "S H"] | None = None

    @property
    def attention_linears(self) -> dict[str, Linear]:
        """The four layers of D x D, by their names."""
        return {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "attention_output": self.attention_output,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """DeBERTa-v2 xlarge's: norm(layer 0's output + activation(conv(embeddings))), row by row."""

    weight: Float[Tensor, "D G K"]
    bias: Float[Tensor, " D"]
    groups: int
    activation: Activation
    norm: Norm


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """output(activation(dense(first token's hidden state))), in float32 at least."""

    dense: Linear
    activation: Activation
    output: Linear


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A whole model.

    Args:
        scale: of attention scores, applied to queries.
        activation: between the two feed-forward matrices.
        distances: None where the model has no relative positions.
        biases: MPNet's, which every layer adds to its scores; `distances` says which row.
        max_positions: tokens of the longest row, None for no limit.
    """

    num_heads: int
    scale: float
    activation: Activation
    embeddings: Embeddings
    layers: tuple[Layer, ...]
    convolution: Convolution | None
    distances: Distances | Buckets | None
    head: Head
    vocab_size: int
    max_positions: int | None
    biases: Float[Tensor, "S H"] | None = None

    @property
    def width(self) -> int:
        """D, the width of a token's hidden state."""
        return self.layers[0].query.weight.shape[0]

    @property
    def positionless(self) -> bool:
        """Whether layer 0's input depends on the token id alone."""
        return self.embeddings.positions is None and not self.embeddings.typed


@dataclass(frozen=True, slots=True, eq=False)
class DecoderLayer:
    """One decoder layer: norm, attention with grouped queries, norm, gated feed-forward.

    Args:
        query: to num_heads x head_width; `key` and `value` to num_kv_heads x head_width.
        output: back to D.
        gate: its activation is multiplied with what `up` gives.
        attention_norm, feed_forward_norm: weights of the root mean square norms [D] before the two halves.
        query_norm, key_norm: weights [head_width] of such norms of each head's queries and keys, before their rotation.
        window: how many tokens up to its own a query sees; None: all.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    gate: Linear
    up: Linear
    down: Linear
    attention_norm: Tensor
    feed_forward_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    window: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderLayout:
    """A whole decoder. Float weights may be narrow (bfloat16, float16): engines widen them as they read them.

    Args:
        num_kv_heads: of keys and values; num_heads is a multiple of it.
        scale: of attention scores.
        activation: of the gate.
        norm_eps: of every norm.
        rope: the rotation of queries and keys.
        causal: which tokens rows may share, and where they are scored.
        words: [V, D].
        norm: [D], of the scored tokens, before the head.
        output: the head, in float32.
        max_positions: tokens of the longest row, None for no limit.
    """

    num_heads: int
    num_kv_heads: int
    head_width: int
    scale: float
    activation: Activation
    norm_eps: float
    rope: Rope
    causal: Causal
    words: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Tensor
    output: Linear
    vocab_size: int
    max_positions: int | None


def linear(module: nn.Module) -> Linear:
    """The layout of a linear layer, float or quantized."""
    if isinstance(module, QuantisedLinear):
        return Linear(module.weight.detach(), _detached(module.bias), module.weight_scale.detach())
    assert isinstance(module, nn.Linear)
    return Linear(module.weight.detach(), _detached(module.bias))


def head_linear(module: nn.Linear) -> Linear:
    """The layout of a head, whose weights are float32 unless the whole network was narrowed after loading."""
    return Linear(widened(module.weight.detach()), widened(module.bias.detach()))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def norm(module: nn.LayerNorm) -> Norm:
    """The layout of a layer norm."""
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def layer(
    query: nn.Module, key: nn.Module, value: nn.Module, attended: AddNorm, intermediate: Intermediate, output: AddNorm
) -> Layer:
    """The layout of a layer made of the blocks of `packed_encoder.py`, without relative positions."""
    return Layer(
        query=linear(query),
        key=linear(key),
        value=linear(value),
        attention_output=linear(attended.dense),
        attention_norm=norm(attended.LayerNorm),
        up=linear(intermediate.dense),
        down=linear(output.dense),
        output_norm=norm(output.LayerNorm),
    )
