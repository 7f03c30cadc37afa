"""Decoders like Llama on batches of segments: Llama, Mistral, Qwen 2 and 3, Phi-3; each shared beginning is there once.

Everything but attention runs once for each distinct token. A segment's queries read the keys and values of its
ancestors and its own, gathered row by row (`attending.py`). Of the last layer only scored tokens are computed.
Parameter names are transformers'.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from prefrank.io.json_files import Fields
from prefrank.model import layout as laid
from prefrank.model.families.attending import Reading, attend, read_all, read_ends
from prefrank.model.families.decoder_parts import Norm, gate, rotate
from prefrank.model.families.decoder_spec import DecoderSpec, read_decoder_spec
from prefrank.model.fit import drop_rows
from prefrank.model.heads import ONLY_HEAD, HeadLinear, widened
from prefrank.model.linear import Linear, activated, in_blocks
from prefrank.model.pack import check_batch
from prefrank.model.packed_encoder import Dropout, Embedding, run_layer
from prefrank.model.segments import segments_of
from prefrank.types import Batch, Causal

Angles = tuple[Float[Tensor, "T r"], Float[Tensor, "T r"]]


class SelfAttention(nn.Module):
    """Grouped queries over gathered keys and values."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.sizes = [spec.num_heads * spec.head_width, *[spec.num_kv_heads * spec.head_width] * 2]
        self.head_width = spec.head_width
        self.dropout = spec.attention_dropout
        if spec.merged:
            self.qkv_proj = Linear(spec.width, sum(self.sizes), bias=spec.qkv_bias)
        else:
            query, key, value = (Linear(spec.width, size, bias=spec.qkv_bias) for size in self.sizes)
            self.q_proj, self.k_proj, self.v_proj = query, key, value
        self.o_proj = Linear(self.sizes[0], spec.width, bias=spec.output_bias)
        self.q_norm = Norm(spec.head_width, spec.norm_eps) if spec.head_norms else None
        self.k_norm = Norm(spec.head_width, spec.norm_eps) if spec.head_norms else None
        self.merged = spec.merged

    def forward(self, hidden: Float[Tensor, "T D"], angles: Angles, reading: Reading) -> Float[Tensor, "M D"]:
        parts = self._projected(hidden, reading.ends)
        query, key, value = (part.unflatten(-1, (-1, self.head_width)) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        asking = angles if reading.ends is None else tuple(part.index_select(0, reading.ends) for part in angles)
        query, key = rotate(query, *asking), rotate(key, *angles)
        seen = attend(query, key, value, reading, dropout=self.dropout if self.training else 0.0)
        return self.o_proj(seen.flatten(1))

    def _projected(self, hidden: Float[Tensor, "T D"], ends: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the tokens that ask, and keys and values of all."""
        asking = hidden if ends is None else hidden.index_select(0, ends)
        if not self.merged:
            return self.q_proj(asking), self.k_proj(hidden), self.v_proj(hidden)
        query, key, value = self.qkv_proj(hidden).split(self.sizes, dim=-1)
        return query if ends is None else query.index_select(0, ends), key, value


class FeedForward(nn.Module):
    """down(activation(gate(x)) * up(x)), token by token."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        width, inner, bias = spec.width, spec.feed_forward_width, spec.feed_forward_bias
        if spec.merged:
            self.gate_up_proj = Linear(width, 2 * inner, bias=bias)
        else:
            self.gate_proj = Linear(width, inner, bias=bias)
            self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.activation = spec.activation
        self.merged = spec.merged

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return self.down_proj(self._gated(x))

    def _gated(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M W"]:
        if self.merged:
            gated, up = self.gate_up_proj(x).chunk(2, dim=-1)
            return gate(gated, up, self.activation)
        if torch.is_grad_enabled():
            return gate(self.gate_proj(x), self.up_proj(x), self.activation)
        return activated(self.gate_proj, x, self.activation).mul_(self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each on a norm of what it is added to; of the tokens that ask alone."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.self_attn = SelfAttention(spec)
        self.mlp = FeedForward(spec)
        self.input_layernorm = Norm(spec.width, spec.norm_eps)
        self.post_attention_layernorm = Norm(spec.width, spec.norm_eps)
        self.dropout = Dropout(spec.residual_dropout)

    def forward(self, hidden: Float[Tensor, "T D"], angles: Angles, reading: Reading) -> Float[Tensor, "M D"]:
        attended = self.self_attn(self.input_layernorm(hidden), angles, reading)
        asking = hidden if reading.ends is None else hidden.index_select(0, reading.ends)
        return in_blocks(self, self._feed_forward, asking + self.dropout(attended))

    def _feed_forward(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class Backbone(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        padding = spec.padding if spec.padding is not None and 0 <= spec.padding < spec.vocab_size else None
        self.embed_tokens = Embedding(spec.vocab_size, spec.width, padding_idx=padding)
        self.layers = nn.ModuleList(Layer(spec) for _ in spec.windows)
        self.norm = Norm(spec.width, spec.norm_eps)


class DecoderNetwork(nn.Module):
    """A decoder with a linear head: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    `config` is the raw config.json. `max_positions` is the longest row. A row is scored at its rightmost token that is
    not `scored_padding`, at its last where that is None. Set `gradient_checkpointing` to keep no activations inside
    layers while training, and `wide` to compute in float32 with weights that are held narrower.
    """

    decoder = True

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        spec = read_decoder_spec(Fields.of(raw), dropout=dropout)
        self.spec = spec
        self.config: dict[str, Any] = dict(raw)
        self.max_positions = spec.max_positions
        self.vocab_size = spec.vocab_size
        self.gradient_checkpointing = False
        self.fused = False
        self.wide = False
        self.heads: tuple[str, ...] = (ONLY_HEAD,)
        self.uncut: dict[str, Tensor] = {}
        self.backbone = "model"
        self.output_layer = "score"
        self.model = Backbone(spec)
        self.score = HeadLinear(spec.width, 1, bias=False)
        self.scored_padding: int | None = None
        self.causal: Causal | None = None
        self.pass_over_padding()

    def score_last_token(self) -> None:
        """Read scores at each row's last token, whatever that is. No token stands for padding then, so that the
        embedding of every one is trained.
        """
        self.scored_padding, self.causal = None, self.spec.rope.causal(None)
        self.model.embed_tokens.padding_idx = None

    def pass_over_padding(self) -> None:
        """Read scores at the rightmost token that is not the config's padding, as transformers does."""
        self.scored_padding, self.causal = self.spec.padding, self.spec.rope.causal(self.spec.padding)

    def drop_rows(self, folder: Path, count: int) -> None:
        """Take off the last rows of the table of embeddings, as `fit.drop_rows` does."""
        drop_rows(self.model.embed_tokens, folder, count)
        self.vocab_size -= count
        self.config["vocab_size"] = self.vocab_size

    def obstacle(self) -> str | None:
        """Why `fused` cannot be set here."""
        return "it is for encoders, and this model reads from left to right"

    def sharing(self, ids: Int64[np.ndarray, " T"]) -> AbstractContextManager[None]:
        """What the micro-batches of a step share: their rows of the word table. `ids` are those of the step."""
        return self.model.embed_tokens.sharing(ids)

    def forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        check_batch(batch, vocab_size=self.vocab_size, max_positions=self.max_positions)
        causal = self.causal
        assert causal is not None
        segments = segments_of(batch, causal)
        words = self.model.embed_tokens
        device = words.weight.device
        hidden = words(torch.from_numpy(segments.ids).to(device))
        hidden = widened(hidden) if self.wide else hidden
        lengths = np.repeat(segments.lengths, np.diff(segments.starts))
        cosines, sines = self.spec.rope.angles(segments.positions, lengths)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        angles = cosines.to(device, wide), sines.to(device, wide)
        windows = self.spec.windows
        readings = {window: read_all(segments, window, like=hidden) for window in set(windows[:-1])}
        last = read_ends(segments, windows[-1], like=hidden)
        for layer, window in zip(self.model.layers, windows[:-1], strict=False):
            hidden = self._run(layer, hidden, angles, readings[window])
        hidden = self._run(self.model.layers[-1], hidden, angles, last)
        return self.score(self.model.norm(hidden)).squeeze(-1).float()

    def _run(self, layer: nn.Module, *inputs: Any) -> Float[Tensor, "M D"]:
        """One layer; of a network that computes wide, with its weights widened meanwhile."""
        if not self.wide:
            return run_layer(layer, self.gradient_checkpointing, *inputs)
        floats = {name: weight for name, weight in layer.named_parameters() if weight.is_floating_point()}
        return functional_call(layer, {name: widened(weight) for name, weight in floats.items()}, inputs)


def lay_out(network: DecoderNetwork) -> laid.DecoderLayout:
    """The layout of a network, float or quantized, which shares its weights."""
    spec, causal, backbone = network.spec, network.causal, network.model
    assert causal is not None
    layers = [layer for layer in backbone.layers if isinstance(layer, Layer)]
    return laid.DecoderLayout(
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_width=spec.head_width,
        scale=spec.head_width**-0.5,
        activation=spec.activation,
        norm_eps=spec.norm_eps,
        rope=spec.rope,
        causal=causal,
        words=backbone.embed_tokens.weight.detach(),
        layers=tuple(_lay_out_layer(layer, window) for layer, window in zip(layers, spec.windows, strict=True)),
        norm=backbone.norm.weight.detach(),
        output=laid.Linear(widened(network.score.weight.detach()), None),
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _lay_out_layer(layer: Layer, window: int | None) -> laid.DecoderLayer:
    attention, mlp = layer.self_attn, layer.mlp
    if attention.merged:
        query, key, value = _divided(laid.linear(attention.qkv_proj), attention.sizes)
        gated, up = _divided(laid.linear(mlp.gate_up_proj), [mlp.down_proj.in_features] * 2)
    else:
        query, key, value = (laid.linear(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        gated, up = laid.linear(mlp.gate_proj), laid.linear(mlp.up_proj)
    return laid.DecoderLayer(
        query=query,
        key=key,
        value=value,
        output=laid.linear(attention.o_proj),
        gate=gated,
        up=up,
        down=laid.linear(mlp.down_proj),
        attention_norm=layer.input_layernorm.weight.detach(),
        feed_forward_norm=layer.post_attention_layernorm.weight.detach(),
        query_norm=None if attention.q_norm is None else attention.q_norm.weight.detach(),
        key_norm=None if attention.k_norm is None else attention.k_norm.weight.detach(),
        window=window,
    )


def _divided(merged: laid.Linear, sizes: list[int]) -> list[laid.Linear]:
    """A matrix of several layers as those layers."""
    nothing = [None] * len(sizes)
    return [
        laid.Linear(weight, bias, scale)
        for weight, bias, scale in zip(
            merged.weight.split(sizes),
            nothing if merged.bias is None else merged.bias.split(sizes),
            nothing if merged.scale is None else merged.scale.split(sizes),
            strict=True,
        )
    ]
