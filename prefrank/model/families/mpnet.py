"""MPNet on packed batches: BERT's layers, with one table of biases by distance that all layers add to their scores.

The score of query i and key j gets one number per head for the bucket of j - i (Raffel et al. 2020, T5, section 2.1;
Song et al. 2020, MPNet). Positions start after the padding id, which is always 1, as RoBERTa's, and there are no token
types. The last layer computes only each row's first token, the one that is pooled; nothing else reads the rest.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.io.json_files import Fields
from prefrank.model import layout as laid
from prefrank.model.distances import Buckets, skew
from prefrank.model.families.bert import DenseHead
from prefrank.model.heads import ONLY_HEAD
from prefrank.model.linear import Linear, in_blocks
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.packed_encoder import (
    AddNorm,
    Dropout,
    Embedding,
    EncoderConfig,
    Intermediate,
    can_fold,
    join_heads,
    project_by_head,
    read_encoder_config,
    run_layer,
    split_heads,
)
from prefrank.types import Batch, Causal

PADDING = 1
FIRST_POSITION = PADDING + 1
DISTANCES = Buckets(32, max_distance=128)
"""Of every MPNet: of config.json's number of buckets, transformers makes the table alone."""


def read_mpnet_config(config: Fields, *, dropout: float | None) -> EncoderConfig:
    """config.json of an MPNet model; BadModel for what cannot be run here."""
    if config.integer("relative_attention_num_buckets", DISTANCES.size) != DISTANCES.size:
        config.refuse("relative_attention_num_buckets", f"{DISTANCES.size}, into which MPNet always sorts distances")
    encoder = read_encoder_config(config, dropout=dropout, num_types=0, norm_eps=1e-12, padding_id=PADDING)
    if encoder.num_positions <= FIRST_POSITION:
        config.refuse("max_position_embeddings", f"more than {FIRST_POSITION}, where positions start")
    if encoder.vocab_size <= PADDING:
        config.refuse("vocab_size", f"more than {PADDING}, the id of padding")
    return encoder


class Embeddings(nn.Module):
    """Words and absolute positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.width, padding_idx=PADDING)
        self.position_embeddings = nn.Embedding(config.num_positions, config.width, padding_idx=PADDING)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, pack: Pack) -> Float[Tensor, "T D"]:
        places = self.position_embeddings(pack.positions + FIRST_POSITION)
        return self.dropout(self.LayerNorm(self.word_embeddings(pack.ids) + places))


class SelfAttention(nn.Module):
    """Scaled dot-product attention inside each row, with a bias for each pair of tokens; `o` is for its output."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.q = Linear(config.width, config.width)
        self.k = Linear(config.width, config.width)
        self.v = Linear(config.width, config.width)
        self.o = Linear(config.width, config.width)
        self.num_heads = config.num_heads
        self.scale = (config.width // config.num_heads) ** -0.5
        self.dropout = Dropout(config.attention_dropout)

    def forward(
        self,
        queries: Float[Tensor, "M D"],
        hidden: Float[Tensor, "T D"],
        pack: Pack,
        group_queries: list[int],
        biases: list[Tensor],
    ) -> Float[Tensor, "M D"]:
        """`biases` are [H, L, L] for each group of rows."""
        if len(queries) < len(hidden) and can_fold(self.k, self.v, device=hidden.device):
            return self._first_tokens(queries, hidden, pack, biases)
        groups = zip(
            pack.group_rows,
            self.q(queries).split(group_queries),
            self.k(hidden).split(pack.group_tokens),
            self.v(hidden).split(pack.group_tokens),
            biases,
            strict=True,
        )
        return torch.cat([self._attend(*group) for group in groups])

    def _attend(
        self,
        rows: int,
        query: Float[Tensor, "q D"],
        key: Float[Tensor, "k D"],
        value: Float[Tensor, "k D"],
        bias: Float[Tensor, "H L L"],
    ) -> Float[Tensor, "q D"]:
        q, k, v = (split_heads(x, rows, self.num_heads) for x in (query, key, value))
        bias = bias[:, : q.shape[2]]
        if self.training or torch.is_grad_enabled():  # no attention of torch's has a gradient for biases on a CPU
            scores = q * self.scale @ k.mT + bias
            return join_heads(self.dropout(scores.softmax(-1)) @ v)
        return join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype)))

    def _first_tokens(
        self, firsts: Float[Tensor, "N D"], hidden: Float[Tensor, "T D"], pack: Pack, biases: list[Tensor]
    ) -> Float[Tensor, "N D"]:
        """Attention of each row's first token without keys and values: q.(W x) is (W^T q).x, and sum a (W x) is
        W sum a x.
        """
        query = (self.q(firsts) * self.scale).unflatten(-1, (self.num_heads, -1))
        matrices = self.k.weight.unflatten(0, (self.num_heads, -1))
        asking = torch.bmm(query.transpose(0, 1), matrices).transpose(0, 1)
        constant = (query * self.k.bias.unflatten(0, (self.num_heads, -1))).sum(-1, keepdim=True)
        groups = pack.group_rows, asking.split(pack.group_rows), constant.split(pack.group_rows)
        means, weights = [], []
        for rows, u, c, tokens, bias in zip(*groups, hidden.split(pack.group_tokens), biases, strict=True):
            x = tokens.unflatten(0, (rows, -1))
            shares = self.dropout((u @ x.mT + c + bias[:, 0]).softmax(-1))
            means.append(shares @ x)
            weights.append(shares.sum(-1))
        return project_by_head(torch.cat(means), self.v, torch.cat(weights))


class Attention(nn.Module):
    """Names the parts of a layer's attention: `attn`, and the norm after its output is added to the input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)


class Layer(nn.Module):
    """Attention and feed-forward; with `firsts_only` just for each row's first token: [T, D] -> [N, D]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config, config.feed_forward_width)

    def forward(
        self, hidden: Float[Tensor, "T D"], pack: Pack, firsts_only: bool, biases: list[Tensor]
    ) -> Float[Tensor, "M D"]:
        queries = hidden[pack.firsts] if firsts_only else hidden
        group_queries = pack.group_rows if firsts_only else pack.group_tokens
        seen = self.attention.attn(queries, hidden, pack, group_queries, biases)
        return in_blocks(self, self._after_attention, seen, queries)

    def _after_attention(self, seen: Float[Tensor, "M D"], hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        part = self.attention
        attended = part.LayerNorm(part.dropout(part.attn.o(seen)) + hidden)
        return self.output(self.intermediate(attended), attended)


class Encoder(nn.Module):
    """The layers, down to each row's first token, and the table of biases that they share."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.relative_attention_bias = nn.Embedding(DISTANCES.size, config.num_heads)

    def layers(self) -> list[Layer]:
        """The layers, from below."""
        return [layer for layer in self.layer if isinstance(layer, Layer)]

    def forward(self, hidden: Float[Tensor, "T D"], pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        biases = self._biases(pack)
        for layer in self.layer[:-1]:
            hidden = run_layer(layer, checkpointed, hidden, pack, False, biases)
        return run_layer(self.layer[-1], checkpointed, hidden, pack, True, biases)

    def _biases(self, pack: Pack) -> list[Tensor]:
        """The biases [H, L, L] of each group of rows: corners of those of the longest row."""
        longest = pack.longest
        falling = DISTANCES.rows(longest)[:-1].flip(0)  # from longest - 1 to -longest
        by_distance = self.relative_attention_bias(falling.to(self.relative_attention_bias.weight.device)).T
        whole = skew(by_distance[None, :, None].expand(-1, -1, longest, -1), longest)[0]
        lengths = [tokens // rows for tokens, rows in zip(pack.group_tokens, pack.group_rows, strict=True)]
        corners = {length: whole[:, :length, :length] for length in lengths}
        return [corners[length] for length in lengths]


class Backbone(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        return self.encoder(self.embeddings(pack), pack, checkpointed)


class MPNetNetwork(nn.Module):
    """An MPNet reward model: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    `config` is the raw config.json. `max_positions` is the longest row. Set `gradient_checkpointing` to keep no
    activations inside layers while training.
    """

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        config = read_mpnet_config(Fields.of(raw), dropout=dropout)
        self.config: dict[str, Any] = dict(raw)
        self.max_positions: int | None = config.num_positions - FIRST_POSITION
        self.gradient_checkpointing = False
        self.fused = False
        self.causal: Causal | None = None
        self.heads: tuple[str, ...] = (ONLY_HEAD,)
        self.uncut: dict[str, Tensor] = {}
        self.backbone = "mpnet"
        self.output_layer = "classifier.out_proj"
        self.vocab_size = config.vocab_size
        self.mpnet = Backbone(config)
        self.classifier = DenseHead(config.width, torch.tanh, config.hidden_dropout)

    def obstacle(self) -> str | None:
        """Why `fused` cannot be set here, as the end of a sentence."""
        return "it has no biases by distance, which MPNet's attention adds; use kernels='torch'"

    def sharing(self, ids: Int64[np.ndarray, " T"]) -> AbstractContextManager[None]:
        """What the micro-batches of a step share: their rows of the word table. `ids` are those of the step."""
        return self.mpnet.embeddings.word_embeddings.sharing(ids)

    def forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        device, limit = self.classifier.dense.weight.device, self.max_positions
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=limit, device=device)
        return self.classifier(self.mpnet(pack, self.gradient_checkpointing)).squeeze(-1).float()


def lay_out(network: MPNetNetwork) -> laid.Layout:
    """The layout of a network, float or quantized, which shares its weights."""
    words, encoder, classifier = network.mpnet.embeddings, network.mpnet.encoder, network.classifier
    layers = encoder.layers()
    attention = layers[0].attention.attn
    return laid.Layout(
        num_heads=attention.num_heads,
        scale=attention.scale,
        activation=layers[0].intermediate.activation,
        embeddings=laid.Embeddings(
            words.word_embeddings.weight.detach(),
            words.position_embeddings.weight.detach(),
            None,
            laid.norm(words.LayerNorm),
            None,
            first_position=FIRST_POSITION,
            typed=False,
            projected_first=False,
        ),
        layers=tuple(_lay_out_layer(layer) for layer in layers),
        convolution=None,
        distances=DISTANCES,
        biases=encoder.relative_attention_bias.weight.detach(),
        head=laid.Head(
            laid.head_linear(classifier.dense), classifier.activation, laid.head_linear(classifier.out_proj)
        ),
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _lay_out_layer(layer: Layer) -> laid.Layer:
    inner = layer.attention.attn
    return laid.Layer(
        query=laid.linear(inner.q),
        key=laid.linear(inner.k),
        value=laid.linear(inner.v),
        attention_output=laid.linear(inner.o),
        attention_norm=laid.norm(layer.attention.LayerNorm),
        up=laid.linear(layer.intermediate.dense),
        down=laid.linear(layer.output.dense),
        output_norm=laid.norm(layer.output.LayerNorm),
    )
