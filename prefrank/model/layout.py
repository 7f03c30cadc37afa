"""A trained network laid out for scoring: plain arrays in the order in which an engine reads them.

The module tree (`bert.py`, `deberta.py`) is the autograd path and the oracle. The engines that only score,
`exact.py` in PyTorch and `native.py` in C++, read this instead. No weight is copied: every matrix is the network's own
tensor, so a model of 6 GB stays 6 GB. Only what depends on the weights alone is computed here, once: the projections of
DeBERTa's relative positions, which transformers computes again in every layer of every batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import Convolution as DebertaConvolution
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.disentangled import DisentangledAttention, bucket
from prefrank.model.heads import widened
from prefrank.model.integer_weights import FixedPositions, QuantisedLinear
from prefrank.model.packed_encoder import Activation, AddNorm


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x W^T + b. Integer weights stand for `weight * scale[:, None]`, one scale per output."""

    weight: Tensor
    bias: Float[Tensor, " O"] | None
    scale: Float[Tensor, " O"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Layer normalisation."""

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
    quantised network they are int16, with a scale for each row and head.
    """

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm
    position_keys: Tensor | None
    position_queries: Tensor | None
    position_keys_scale: Float[Tensor, "S H"] | None = None
    position_queries_scale: Float[Tensor, "S H"] | None = None


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


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Which row of the relative table a distance between two tokens reads."""

    span: int
    buckets: int
    max_distance: int

    def rows(self, longest: int) -> Int64[Tensor, " R"]:
        """Rows of the table for the distances from -longest to longest, on the CPU."""
        distances = torch.arange(-longest, longest + 1)
        if self.buckets:
            distances = bucket(distances, buckets=self.buckets, max_distance=self.max_distance)
        return (distances + self.span).clamp(0, 2 * self.span - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A whole model.

    Args:
        scale: of attention scores, applied to queries.
        activation: between the two feed-forward matrices.
        distances: None where the model has no relative positions.
        max_positions: tokens of the longest row, None for no limit.
    """

    num_heads: int
    scale: float
    activation: Activation
    embeddings: Embeddings
    layers: tuple[Layer, ...]
    convolution: Convolution | None
    distances: Distances | None
    head: Head
    vocab_size: int
    max_positions: int | None

    @property
    def width(self) -> int:
        """D, the width of a token's hidden state."""
        return self.layers[0].query.weight.shape[0]

    @property
    def positionless(self) -> bool:
        """Whether layer 0's input depends on the token id alone."""
        return self.embeddings.positions is None and not self.embeddings.typed


def lay_out(network: BertNetwork | DebertaNetwork) -> Layout:
    """The layout of a native network, float or quantised; it shares the network's weights."""
    with torch.no_grad():
        return _bert(network) if isinstance(network, BertNetwork) else _deberta(network)


def _linear(module: nn.Linear | QuantisedLinear) -> Linear:
    scale = module.weight_scale.detach() if isinstance(module, QuantisedLinear) else None
    return Linear(module.weight.detach(), _detached(module.bias), scale)


def _wide(module: nn.Linear) -> Linear:
    """Of a head, whose own weights are float32 unless the whole network was narrowed after it was loaded."""
    return Linear(widened(module.weight.detach()), widened(module.bias.detach()))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _bert(network: BertNetwork) -> Layout:
    backbone: Any = network.get_submodule(network.family)
    classifier: Any = network.classifier
    words = backbone.embeddings
    projection = backbone.embeddings_project
    if network.family == "bert":
        head = Head(_wide(backbone.pooler.dense), torch.tanh, _wide(classifier))
    else:
        head = Head(_wide(classifier.dense), classifier.activation, _wide(classifier.out_proj))
    first: Any = backbone.encoder.layer[0]
    return Layout(
        num_heads=first.attention.self.num_heads,
        scale=(first.attention.self.query.out_features // first.attention.self.num_heads) ** -0.5,
        activation=first.intermediate.activation,
        embeddings=Embeddings(
            words.word_embeddings.weight.detach(),
            words.position_embeddings.weight.detach(),
            words.token_type_embeddings.weight.detach(),
            _norm(words.LayerNorm),
            None if projection is None else _linear(projection),
            words.first_position,
            words.typed,
            projected_first=False,
        ),
        layers=tuple(_layer(layer, "query", "key", "value", None) for layer in backbone.encoder.layer),
        convolution=None,
        distances=None,
        head=head,
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _deberta(network: DebertaNetwork) -> Layout:
    words, encoder, pooler = network.deberta.embeddings, network.deberta.encoder, network.pooler
    first: Any = encoder.layer[0]
    attention: DisentangledAttention = first.attention.self
    table = None if encoder.rel_embeddings is None else encoder.rel_embeddings.weight
    if table is not None and encoder.LayerNorm is not None:
        table = encoder.LayerNorm(table)
    kinds, places = words.token_type_embeddings, words.position_embeddings
    return Layout(
        num_heads=attention.num_heads,
        scale=attention.scale,
        activation=first.intermediate.activation,
        embeddings=Embeddings(
            words.word_embeddings.weight.detach(),
            None if places is None else places.weight.detach(),
            None if kinds is None else kinds.weight.detach(),
            _norm(words.LayerNorm),
            None if words.embed_proj is None else _linear(words.embed_proj),
            0,
            words.num_types > 1,
            projected_first=True,
        ),
        layers=tuple(_layer(layer, "query_proj", "key_proj", "value_proj", table) for layer in encoder.layer),
        convolution=None if encoder.conv is None else _convolution(encoder.conv),
        distances=None if table is None else Distances(encoder.span, encoder.buckets, encoder.max_distance),
        head=Head(_wide(pooler.dense), pooler.activation, _wide(network.classifier)),
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _convolution(module: DebertaConvolution) -> Convolution:
    conv = module.conv
    assert conv.bias is not None
    return Convolution(
        conv.weight.detach(), conv.bias.detach(), conv.groups, module.activation, _norm(module.LayerNorm)
    )


def _layer(module: Any, query: str, key: str, value: str, table: Tensor | None) -> Layer:
    inner, out = module.attention.self, module.attention.output
    positions = {} if table is None else _positions(inner, table)
    output: AddNorm = module.output
    return Layer(
        query=_linear(getattr(inner, query)),
        key=_linear(getattr(inner, key)),
        value=_linear(getattr(inner, value)),
        attention_output=_linear(out.dense),
        attention_norm=_norm(out.LayerNorm),
        up=_linear(module.intermediate.dense),
        down=_linear(output.dense),
        output_norm=_norm(output.LayerNorm),
        position_keys=positions.get("keys"),
        position_queries=positions.get("queries"),
        position_keys_scale=positions.get("keys_scale"),
        position_queries_scale=positions.get("queries_scale"),
    )


def _positions(attention: DisentangledAttention, table: Tensor) -> dict[str, Tensor]:
    """Relative embeddings through a layer's projections, always float ones (see `quantise.FixedPositions`)."""
    found = {}
    key: Any = attention.pos_key_proj or attention.key_proj
    query: Any = attention.pos_query_proj or attention.query_proj
    for term, name, module, scale in (("c2p", "keys", key, 1.0), ("p2c", "queries", query, attention.scale)):
        if term in attention.terms and isinstance(module, FixedPositions):
            found[name], found[f"{name}_scale"] = module.projected.detach(), module.projected_scale.detach() * scale
        elif term in attention.terms:
            projected = module(table).detach()
            found[name] = projected if scale == 1.0 else projected * scale
    return found
