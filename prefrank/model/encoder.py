"""What BERT and DeBERTa encoders share: the reading of config.json and the blocks around attention.

Parameter names follow transformers, so `LayerNorm` and `self` are attribute names here on purpose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from prefrank.errors import BadModel, suggest

Value = TypeVar("Value", int, float, str, bool)
Activation = Callable[[Tensor], Tensor]

_tanh_gelu = partial(F.gelu, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _linear(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_accurate": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": _quick_gelu,
    "linear": _linear,
    "mish": F.mish,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Activation:
    """The activation function of that name in config.json, or BadModel."""
    if name not in ACTIVATIONS:
        raise BadModel(f"config.json asks for the activation {name!r}{suggest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def field(raw: Mapping[str, Any], name: str, kind: type[Value], default: Value | None = None) -> Value:
    """One value of config.json; absent or null gives the default, and BadModel where there is none."""
    value = raw.get(name)
    if value is None:
        if default is None:
            raise BadModel(f"config.json has no {name!r}, which a {raw.get('model_type')} model needs")
        return default
    if kind is float and type(value) is int:
        return kind(value)
    if type(value) is not kind:
        raise BadModel(f"config.json's {name} is {value!r}; wanted {kind.__name__}")
    return value


def size(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A count of config.json that must be at least 1."""
    value = field(raw, name, int, default)
    if value < 1:
        raise BadModel(f"config.json's {name} is {value}; wanted at least 1")
    return value


def rate(raw: Mapping[str, Any], name: str, default: float, override: float | None) -> float:
    """A dropout rate: the caller's `override` if there is one, else config.json's."""
    value = field(raw, name, float, default) if override is None else override
    if not 0.0 <= value < 1.0:
        raise BadModel(f"the dropout rate {name} is {value}; wanted 0 up to 1")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """The numbers of config.json that every native encoder needs, checked.

    Args:
        width: of a token's hidden state (D).
        embedding_width: of a token's embedding before it is projected to `width`.
        feed_forward_width: of the layer between a block's two feed-forward matrices.
        num_positions: rows of the absolute position table.
        num_types: rows of the token type table.
        padding_id: token id whose embedding gets no gradient, as in transformers.
    """

    vocab_size: int
    width: int
    embedding_width: int
    feed_forward_width: int
    num_layers: int
    num_heads: int
    num_positions: int
    num_types: int
    padding_id: int | None
    norm_eps: float
    activation: Activation
    hidden_dropout: float
    attention_dropout: float


def read_encoder_config(
    raw: Mapping[str, Any],
    *,
    dropout: float | None,
    embedding_width: int | None = None,
    num_types: int,
    norm_eps: float,
    padding_id: int,
) -> EncoderConfig:
    """config.json's shared part; the keyword values stand in for keys it leaves out."""
    width, num_heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    if width % num_heads:
        raise BadModel(f"config.json has a hidden_size of {width} and {num_heads} heads; wanted a multiple")
    vocab_size = size(raw, "vocab_size")
    padding = field(raw, "pad_token_id", int, padding_id)
    return EncoderConfig(
        vocab_size=vocab_size,
        width=width,
        embedding_width=embedding_width or width,
        feed_forward_width=size(raw, "intermediate_size"),
        num_layers=size(raw, "num_hidden_layers"),
        num_heads=num_heads,
        num_positions=size(raw, "max_position_embeddings", 512),
        num_types=field(raw, "type_vocab_size", int, num_types),
        padding_id=padding if 0 <= padding < vocab_size else None,
        norm_eps=field(raw, "layer_norm_eps", float, norm_eps),
        activation=activation(field(raw, "hidden_act", str, "gelu")),
        hidden_dropout=rate(raw, "hidden_dropout_prob", 0.1, dropout),
        attention_dropout=rate(raw, "attention_probs_dropout_prob", 0.1, dropout),
    )


class AddNorm(nn.Module):
    """A projection back to the model's width, added to its input and normed (after attention and feed-forward)."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Float[Tensor, "M W"], residual: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Intermediate(nn.Module):
    """The first half of the feed-forward block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.feed_forward_width)
        self.activation = config.activation

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M W"]:
        return self.activation(self.dense(x))


class Attention(nn.Module):
    """Names the two parts of a layer's attention: `self` (queries, keys, values) and `output`."""

    def __init__(self, config: EncoderConfig, inner: nn.Module) -> None:
        super().__init__()
        self.self = inner
        self.output = AddNorm(config, config.width)


def split_heads(x: Float[Tensor, "M D"], rows: int, num_heads: int) -> Float[Tensor, "n H l d"]:
    """`rows` rows of equal length, one after the other, as a batch of heads."""
    return x.view(rows, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2)


def join_heads(x: Float[Tensor, "n H l d"]) -> Float[Tensor, "M D"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])


def run_layer(layer: nn.Module, checkpointed: bool, *inputs: Any) -> Float[Tensor, "M D"]:
    """One layer; with `checkpointed`, its activations are computed again in the backward pass, not kept."""
    if checkpointed and layer.training and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
