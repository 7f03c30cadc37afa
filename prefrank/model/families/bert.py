"""The BERT family on packed batches: BERT and MiniLM, RoBERTa (XLM-RoBERTa, CamemBERT), ELECTRA.

One class, because the three differ only in where positions start, whether embeddings are projected, and
in the head: BERT pools with tanh inside its backbone, RoBERTa (tanh) and ELECTRA (gelu) in the classifier.
The last layer computes only each row's first token, the one that is pooled; nothing else reads the rest.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.io.json_files import Fields
from prefrank.model import layout as laid
from prefrank.model.flash import attend, obstacle
from prefrank.model.heads import ONLY_HEAD, HeadLinear
from prefrank.model.linear import Activation, Linear
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.packed_encoder import (
    MOST,
    MOST_WIDTH,
    Dropout,
    Embedding,
    EncoderConfig,
    Layer,
    can_fold,
    join_heads,
    project_by_head,
    rate,
    read_encoder_config,
    run_layer,
    split_heads,
)
from prefrank.types import Batch, Causal


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What differs between the models of this family.

    Args:
        backbone: its name among the parameters.
        head: activation of a classifier of two layers; None: a pooler inside the backbone and a linear classifier.
        typed: whether tokenizers tell prompt and reply apart by token types.
        after_padding: whether positions start after the padding id.
        narrow: whether embeddings have a width of their own.
    """

    backbone: str
    head: Activation | None = None
    typed: bool = True
    after_padding: bool = False
    narrow: bool = False


_ROBERTA = Kind(backbone="roberta", head=torch.tanh, typed=False, after_padding=True)
KINDS = {
    "bert": Kind(backbone="bert"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Kind(backbone="electra", head=F.gelu, narrow=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """A BERT-like model."""

    kind: Kind
    encoder: EncoderConfig
    first_position: int
    head_dropout: float


def read_bert_config(config: Fields, *, dropout: float | None) -> BertConfig:
    """config.json of a BERT-like model; BadModel for what cannot be run here."""
    kind = KINDS[config.text("model_type")]
    if config.text("position_embedding_type", "absolute") != "absolute":
        config.refuse("position_embedding_type", "absolute, the only one that is supported")
    padding_id = 1 if kind.after_padding else 0
    narrow = config.integer("embedding_size", 128, least=1, most=MOST_WIDTH) if kind.narrow else None
    encoder = read_encoder_config(
        config,
        dropout=dropout,
        embedding_width=narrow,
        num_types=2,
        norm_eps=1e-12,
        padding_id=padding_id,
    )
    if encoder.num_types < 1:
        config.refuse("type_vocab_size", "at least 1")
    first_position = 0
    if kind.after_padding:
        first_position = config.integer("pad_token_id", padding_id, most=MOST) + 1
        if first_position >= encoder.num_positions:
            config.refuse("max_position_embeddings", f"more than {first_position}, where positions start")
    return BertConfig(
        kind=kind,
        encoder=encoder,
        first_position=first_position,
        head_dropout=rate(config, "classifier_dropout", encoder.hidden_dropout, dropout),
    )


class Embeddings(nn.Module):
    """Words, token types and absolute positions."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        encoder, width = config.encoder, config.encoder.embedding_width
        # RoBERTa keeps the position row `padding_id` for padding and gives it no gradient.
        unused_position = config.first_position - 1 if config.first_position else None
        self.word_embeddings = Embedding(encoder.vocab_size, width, padding_idx=encoder.padding_id)
        self.position_embeddings = nn.Embedding(encoder.num_positions, width, padding_idx=unused_position)
        self.token_type_embeddings = nn.Embedding(encoder.num_types, width)
        self.LayerNorm = nn.LayerNorm(width, eps=encoder.norm_eps)
        self.dropout = Dropout(encoder.hidden_dropout)
        self.first_position = config.first_position
        self.typed = config.kind.typed and encoder.num_types > 1

    def forward(self, pack: Pack) -> Float[Tensor, "T E"]:
        types = pack.types if self.typed else torch.zeros_like(pack.types)
        words, kinds = self.word_embeddings(pack.ids), self.token_type_embeddings(types)
        places = self.position_embeddings(pack.positions + self.first_position)
        return self.dropout(self.LayerNorm(words + kinds + places))


class SelfAttention(nn.Module):
    """Scaled dot-product attention inside each row."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.query = Linear(config.width, config.width)
        self.key = Linear(config.width, config.width)
        self.value = Linear(config.width, config.width)
        self.num_heads = config.num_heads
        self.dropout = Dropout(config.attention_dropout)

    def forward(
        self, queries: Float[Tensor, "M D"], hidden: Float[Tensor, "T D"], pack: Pack, group_queries: list[int]
    ) -> Float[Tensor, "M D"]:
        if pack.fused is not None:
            query = self.query(queries) * (queries.shape[-1] // self.num_heads) ** -0.5
            dropout = self.dropout.p if self.training else 0.0
            parts = self.key(hidden), self.value(hidden)
            return attend(query, *parts, num_heads=self.num_heads, rows=pack.fused, dropout=dropout)
        if len(queries) < len(hidden) and can_fold(self.key, self.value, device=hidden.device):
            return self._first_tokens(queries, hidden, pack)
        groups = zip(
            pack.group_rows,
            self.query(queries).split(group_queries),
            self.key(hidden).split(pack.group_tokens),
            self.value(hidden).split(pack.group_tokens),
            strict=True,
        )
        return torch.cat([self._attend(*group) for group in groups])

    def _attend(
        self, rows: int, query: Float[Tensor, "q D"], key: Float[Tensor, "k D"], value: Float[Tensor, "k D"]
    ) -> Float[Tensor, "q D"]:
        q, k, v = (split_heads(x, rows, self.num_heads) for x in (query, key, value))
        if not self.training or not self.dropout.p:
            return join_heads(F.scaled_dot_product_attention(q, k, v))
        if q.device.type == "cpu":  # torch's own with dropout makes the same steps, with slower random numbers
            return join_heads(self.dropout((q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)) @ v)
        return join_heads(F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p))

    def _first_tokens(
        self, firsts: Float[Tensor, "N D"], hidden: Float[Tensor, "T D"], pack: Pack
    ) -> Float[Tensor, "N D"]:
        """Attention of each row's first token without keys and values: q.(W x) is (W^T q).x, and sum a (W x) is
        W sum a x.
        """
        query = (self.query(firsts) * (firsts.shape[-1] // self.num_heads) ** -0.5).unflatten(-1, (self.num_heads, -1))
        matrices = self.key.weight.unflatten(0, (self.num_heads, -1))
        asking = torch.bmm(query.transpose(0, 1), matrices).transpose(0, 1)
        constant = (query * self.key.bias.unflatten(0, (self.num_heads, -1))).sum(-1, keepdim=True)
        means, weights = [], []
        parts = (part.split(pack.group_rows) for part in (asking, constant))
        for rows, u, c, x in zip(pack.group_rows, *parts, hidden.split(pack.group_tokens), strict=True):
            x = x.unflatten(0, (rows, -1))
            shares = self.dropout((u @ x.mT + c).softmax(-1))
            means.append(shares @ x)
            weights.append(shares.sum(-1))
        return project_by_head(torch.cat(means), self.value, torch.cat(weights))


class Layers(nn.Module):
    """The stack of layers, down to each row's first token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, SelfAttention(config)) for _ in range(config.num_layers))

    def layers(self) -> list[Layer[SelfAttention]]:
        """The layers, from below."""
        return [layer for layer in self.layer if isinstance(layer, Layer)]

    def forward(self, hidden: Float[Tensor, "T D"], pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        for layer in self.layer[:-1]:
            hidden = run_layer(layer, checkpointed, hidden, pack, False)
        return run_layer(self.layer[-1], checkpointed, hidden, pack, True)


class Pooler(nn.Module):
    """BERT's own: a dense layer and tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = HeadLinear(width, width)

    def forward(self, firsts: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return torch.tanh(self.dense(firsts))


class Backbone(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.embeddings = Embeddings(config)
        self.embeddings_project: Linear | None = None
        if encoder.embedding_width != encoder.width:
            self.embeddings_project = Linear(encoder.embedding_width, encoder.width)
        self.encoder = Layers(encoder)
        self.pooler = Pooler(encoder.width) if config.kind.head is None else None

    def forward(self, pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        hidden = self.embeddings(pack)
        if self.embeddings_project is not None:
            hidden = self.embeddings_project(hidden)
        firsts = self.encoder(hidden, pack, checkpointed)
        return firsts if self.pooler is None else self.pooler(firsts)


class DenseHead(nn.Module):
    """The two-layer head of RoBERTa (tanh) and ELECTRA (gelu)."""

    def __init__(self, width: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.dense = HeadLinear(width, width)
        self.out_proj = HeadLinear(width, 1)
        self.dropout = Dropout(dropout)
        self.activation = activation

    def forward(self, firsts: Float[Tensor, "N D"]) -> Float[Tensor, "N H"]:
        inner = self.activation(self.dense(self.dropout(firsts)))
        return self.out_proj(self.dropout(inner))


class BertNetwork(nn.Module):
    """A BERT-family reward model: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    `config` is the raw config.json. `max_positions` is the longest row. Set `gradient_checkpointing` to keep
    no activations inside layers while training, and `fused` to have attention in one kernel call, where `obstacle` is
    None.
    """

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        config = read_bert_config(Fields.of(raw), dropout=dropout)
        width = config.encoder.width
        self.config: dict[str, Any] = dict(raw)
        self.max_positions: int | None = config.encoder.num_positions - config.first_position
        self.gradient_checkpointing = False
        self.fused = False
        self.causal: Causal | None = None
        self.heads: tuple[str, ...] = (ONLY_HEAD,)
        self.uncut: dict[str, Tensor] = {}
        self.backbone = config.kind.backbone
        self.output_layer = "classifier" if config.kind.head is None else "classifier.out_proj"
        self.vocab_size = config.encoder.vocab_size
        self.head_width = width // config.encoder.num_heads
        self.add_module(self.backbone, Backbone(config))
        self.dropout = Dropout(config.head_dropout if config.kind.head is None else 0.0)
        self.classifier: HeadLinear | DenseHead = HeadLinear(width, 1)
        if config.kind.head is not None:
            self.classifier = DenseHead(width, config.kind.head, config.head_dropout)

    def inner(self) -> Backbone:
        """Embeddings and layers, whose name among the modules is the kind's."""
        backbone = self.get_submodule(self.backbone)
        assert isinstance(backbone, Backbone)
        return backbone

    def obstacle(self) -> str | None:
        """Why `fused` cannot be set here, as the end of a sentence; None where it can."""
        return obstacle(device=next(self.parameters()).device, head_width=self.head_width)

    def sharing(self, ids: Int64[np.ndarray, " T"]) -> AbstractContextManager[None]:
        """What the micro-batches of a step share: their rows of the word table. `ids` are those of the step."""
        return self.inner().embeddings.word_embeddings.sharing(ids)

    def forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        device, limit = next(self.parameters()).device, self.max_positions
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=limit, device=device, fused=self.fused)
        firsts = self.inner()(pack, self.gradient_checkpointing)
        return self.classifier(self.dropout(firsts)).squeeze(-1).float()


def lay_out(network: BertNetwork) -> laid.Layout:
    """The layout of a network, float or quantized, which shares its weights."""
    backbone, classifier = network.inner(), network.classifier
    words, projection, layers = backbone.embeddings, backbone.embeddings_project, backbone.encoder.layers()
    attention = layers[0].attention.self
    if isinstance(classifier, DenseHead):
        dense, activation, output = classifier.dense, classifier.activation, classifier.out_proj
    else:
        assert backbone.pooler is not None
        dense, activation, output = backbone.pooler.dense, torch.tanh, classifier
    return laid.Layout(
        num_heads=attention.num_heads,
        scale=(attention.query.out_features // attention.num_heads) ** -0.5,
        activation=layers[0].intermediate.activation,
        embeddings=laid.Embeddings(
            words.word_embeddings.weight.detach(),
            words.position_embeddings.weight.detach(),
            words.token_type_embeddings.weight.detach(),
            laid.norm(words.LayerNorm),
            None if projection is None else laid.linear(projection),
            words.first_position,
            words.typed,
            projected_first=False,
        ),
        layers=tuple(_lay_out_layer(layer) for layer in layers),
        convolution=None,
        distances=None,
        head=laid.Head(laid.head_linear(dense), activation, laid.head_linear(output)),
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _lay_out_layer(layer: Layer[SelfAttention]) -> laid.Layer:
    inner = layer.attention.self
    return laid.layer(*(inner.query, inner.key, inner.value), layer.attention.output, layer.intermediate, layer.output)
