"""What encoders of every family share: the reading of config.json and the blocks around attention.

Parameter names follow transformers, so `LayerNorm` and `self` are attribute names here on purpose. `Dropout` is torch's
with less work on a CPU; elsewhere it is torch's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from prefrank.errors import BadInput, suggest
from prefrank.io.json_files import Fields
from prefrank.limits import limit
from prefrank.model.linear import Activation, Linear, activated, in_blocks, tanh_gelu
from prefrank.model.pack import Pack

Inner = TypeVar("Inner", bound=nn.Module)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _linear(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": tanh_gelu,
    "gelu_fast": tanh_gelu,
    "gelu_accurate": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "quick_gelu": _quick_gelu,
    "linear": _linear,
    "mish": F.mish,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


MOST = (1 << 31) - 1
"""Of any size, as the kernels count."""
MOST_WIDTH = 1 << 20


def activation(config: Fields, key: str, default: str) -> Activation:
    """The activation function that config.json names, or BadModel."""
    name = config.text(key, default)
    if name not in ACTIVATIONS:
        config.refuse(key, f"the name of an activation{suggest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def rate(config: Fields, key: str, default: float, override: float | None) -> float:
    """A dropout rate: the caller's `override` if there is one, else config.json's.

    Raises:
        BadInput: an override that is not a number from 0 up to 1.
        BadModel: one of config.json.
    """
    if override is None:
        value = config.number(key, default, least=0.0, most=1.0)
        if value == 1.0:
            config.refuse(key, "a number from 0 up to 1")
        return value
    if type(override) not in (int, float) or not 0.0 <= override < 1.0:
        raise BadInput(f"the dropout rate is {override!r}; wanted 0 up to 1")
    return override


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
    config: Fields,
    *,
    dropout: float | None,
    embedding_width: int | None = None,
    num_types: int,
    norm_eps: float,
    padding_id: int,
) -> EncoderConfig:
    """config.json's shared part; the keyword values stand in for keys it leaves out."""
    width = config.integer("hidden_size", least=1, most=MOST_WIDTH)
    num_heads = config.integer("num_attention_heads", least=1, most=MOST_WIDTH)
    if width % num_heads:
        config.refuse("num_attention_heads", f"a number that divides the hidden_size, {width}")
    vocab_size = config.integer("vocab_size", least=1, most=MOST)
    padding = config.integer("pad_token_id", padding_id, least=-MOST, most=MOST)
    return EncoderConfig(
        vocab_size=vocab_size,
        width=width,
        embedding_width=embedding_width or width,
        feed_forward_width=config.integer("intermediate_size", least=1, most=16 * MOST_WIDTH),
        num_layers=config.integer("num_hidden_layers", least=1, most=limit("model_parts")),
        num_heads=num_heads,
        num_positions=config.integer("max_position_embeddings", 512, least=1, most=MOST),
        num_types=config.integer("type_vocab_size", num_types, most=MOST),
        padding_id=padding if 0 <= padding < vocab_size else None,
        norm_eps=config.number("layer_norm_eps", norm_eps, least=0.0, most=1.0),
        activation=activation(config, "hidden_act", "gelu"),
        hidden_dropout=rate(config, "hidden_dropout_prob", 0.1, dropout),
        attention_dropout=rate(config, "attention_probs_dropout_prob", 0.1, dropout),
    )


class Dropout(nn.Dropout):
    """torch's dropout from a sixth of the random numbers on a CPU: 16 bits an element, not a float of 24.

    The rate is rounded to a multiple of 2^-16 and the scale with it, so the expectation stays exact. The bits come from
    torch's default generator.
    """

    def forward(self, x: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        if not self.training or self.p in (0, 1) or x.device.type != "cpu":
            return super().forward(x)
        return x * keep_mask(x, self.p)


def keep_mask(x: Float[Tensor, "*m"], rate: float) -> Float[Tensor, "*m"]:
    """A dropout mask like x: 0 at the given rate (below 1), else the factor that makes up for it."""
    limit = min(round(rate * 2**16), 2**16 - 1)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= limit - 2**15
    return kept.to(x.dtype).mul_(2**16 / (2**16 - limit))


class Embedding(nn.Embedding):
    """torch's embedding; inside `sharing`, micro-batches read and give gradient to the rows of one step alone.

    torch's own makes a gradient as large as the table in every backward pass.
    """

    step_ids: Int64[np.ndarray, " U"] | None = None
    step_rows: Float[Tensor, "U E"]

    def forward(self, ids: Int64[Tensor, " T"]) -> Float[Tensor, "T E"]:
        if self.step_ids is None:
            return super().forward(ids)
        places = np.searchsorted(self.step_ids, ids.cpu().numpy())
        return F.embedding(torch.from_numpy(places).to(ids.device), self.step_rows)

    @contextmanager
    def sharing(self, ids: Int64[np.ndarray, " T"]) -> Iterator[None]:
        """The block sees these ids only; the table's gradient is added up at its end."""
        if not self.weight.requires_grad:
            yield
            return
        self.step_ids = np.unique(ids)
        places = torch.from_numpy(self.step_ids).to(self.weight.device)
        self.step_rows = self.weight.detach()[places].requires_grad_()
        try:
            yield
            slopes = self.step_rows.grad
        finally:
            del self.step_ids, self.step_rows
        if slopes is not None:
            if self.padding_idx is not None:
                slopes[places == self.padding_idx] = 0.0
            if self.weight.grad is None:
                self.weight.grad = torch.zeros_like(self.weight)
            self.weight.grad.index_add_(0, places, slopes)


@contextmanager
def shared(make: Callable[[], list[Tensor]]) -> Iterator[list[Tensor]]:
    """Tensors made once for many backward passes, whose slopes go on into what made them at the end of the block."""
    made = make()
    leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in made]
    yield leaves
    ends = [(tensor, leaf.grad) for tensor, leaf in zip(made, leaves, strict=True) if leaf.grad is not None]
    if ends:
        torch.autograd.backward([tensor for tensor, _ in ends], [slope for _, slope in ends])


class AddNorm(nn.Module):
    """A projection back to the model's width, added to its input and normed (after attention and feed-forward)."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, x: Float[Tensor, "M W"], residual: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Intermediate(nn.Module):
    """The first half of the feed-forward block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.feed_forward_width)
        self.activation = config.activation

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M W"]:
        return activated(self.dense, x, self.activation)


class Attention(nn.Module, Generic[Inner]):
    """Names the two parts of a layer's attention: `self` (queries, keys, values) and `output`."""

    def __init__(self, config: EncoderConfig, inner: Inner) -> None:
        super().__init__()
        self.self = inner
        self.output = AddNorm(config, config.width)


class Layer(nn.Module, Generic[Inner]):
    """Attention and feed-forward; with `firsts_only` just for each row's first token: [T, D] -> [N, D]."""

    def __init__(self, config: EncoderConfig, inner: Inner) -> None:
        super().__init__()
        self.attention = Attention(config, inner)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.feed_forward_width)

    def forward(
        self, hidden: Float[Tensor, "T D"], pack: Pack, firsts_only: bool, *positions: Any
    ) -> Float[Tensor, "M D"]:
        """`positions` are what the attention is given of them beside the hidden states."""
        queries = hidden[pack.firsts] if firsts_only else hidden
        group_queries = pack.group_rows if firsts_only else pack.group_tokens
        seen = self.attention.self(queries, hidden, pack, group_queries, *positions)
        return in_blocks(self, self._after_attention, seen, queries)

    def _after_attention(self, seen: Float[Tensor, "M D"], hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        attended = self.attention.output(seen, hidden)
        return self.output(self.intermediate(attended), attended)


def split_heads(x: Float[Tensor, "M D"], rows: int, num_heads: int) -> Float[Tensor, "n H l d"]:
    """`rows` rows of equal length, one after the other, as a batch of heads."""
    return x.view(rows, -1, num_heads, x.shape[-1] // num_heads).transpose(1, 2)


def join_heads(x: Float[Tensor, "n H l d"]) -> Float[Tensor, "M D"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])


def can_fold(*projections: nn.Module, device: torch.device) -> bool:
    """Whether keys and values of a last layer need not be computed: plain layers (no adapters) in full precision."""
    plain = all(isinstance(projection, Linear) and projection.whole for projection in projections)
    return plain and device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def project_by_head(
    means: Float[Tensor, "N H D"], projection: nn.Linear, weights: Float[Tensor, "N H"]
) -> Float[Tensor, "N D"]:
    """Each head's part of W x + b for its own x: values after the weighted sum instead of before it.

    Args:
        weights: the sum of the weights behind each x, 1 but for dropout, which the bias is multiplied with.
    """
    matrices = projection.weight.unflatten(0, (means.shape[1], -1)).mT
    mixed = torch.bmm(means.transpose(0, 1), matrices).transpose(0, 1)
    if projection.bias is not None:
        mixed = mixed + weights[..., None] * projection.bias.unflatten(0, (means.shape[1], -1))
    return mixed.flatten(1)


def run_layer(layer: nn.Module, checkpointed: bool, *inputs: Any) -> Float[Tensor, "M D"]:
    """One layer; with `checkpointed`, its activations are computed again in the backward pass, not kept."""
    if checkpointed and layer.training and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
