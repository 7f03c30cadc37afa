"""DeBERTa-v2 and v3 on packed batches: disentangled attention without [L, L] index tensors.

The score of query i and key j is q_i.k_j + q_i.PK[b(i-j)] + k_j.PQ[b(i-j)], all over sqrt(terms x head width)
(He et al. 2021, DeBERTa, eq. 4, with the log buckets b of v2). transformers gathers the two position terms
with an index per (i, j). Here PK and PQ are laid out by distance first, so that each term is one matrix
product and a skewed view of it: row i starts one distance later than row i-1.

The bucket function is odd and its rounding is float32's, on the CPU, so that every device agrees with the
training of the published checkpoints. Rows may be longer than the relative range: the last bucket is used.
The last layer computes only each row's first token, the one that is pooled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.errors import BadModel
from prefrank.model.encoder import (
    Activation,
    AddNorm,
    Attention,
    EncoderConfig,
    Intermediate,
    activation,
    field,
    join_heads,
    rate,
    read_encoder_config,
    run_layer,
    size,
    split_heads,
)
from prefrank.model.pack import Pack, pack_batch
from prefrank.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DebertaConfig:
    """A DeBERTa-v2 or v3 model.

    Args:
        absolute: whether positions are also added to the embeddings.
        relative: whether attention knows relative positions at all.
        terms: of "c2p" (query reads position) and "p2c" (key reads position), those in use.
        shared: whether positions go through the layer's own query and key projections.
        span: largest bucket; the table of relative embeddings has 2 x span rows.
        buckets: number of log buckets, 0 for none.
        max_distance: where the log buckets end.
        conv_kernel: width of the convolution beside layer 0, 0 for none.
    """

    encoder: EncoderConfig
    absolute: bool
    relative: bool
    terms: frozenset[str]
    shared: bool
    span: int
    buckets: int
    max_distance: int
    normed: bool
    conv_kernel: int
    conv_groups: int
    conv_activation: Activation
    pooler_activation: Activation
    pooler_dropout: float
    head_dropout: float


def read_deberta_config(raw: Mapping[str, Any], *, dropout: float | None) -> DebertaConfig:
    """config.json of a DeBERTa-v2 model; BadModel for what cannot be run here."""
    width = size(raw, "embedding_size", size(raw, "hidden_size"))
    encoder = read_encoder_config(
        raw, dropout=dropout, embedding_width=width, num_types=0, norm_eps=1e-7, padding_id=0
    )
    buckets = max(0, field(raw, "position_buckets", int, -1))
    max_distance = field(raw, "max_relative_positions", int, -1)
    max_distance = max_distance if max_distance > 0 else encoder.num_positions
    conv_kernel = max(0, field(raw, "conv_kernel_size", int, 0))
    if conv_kernel and conv_kernel % 2 == 0:
        raise BadModel(f"config.json's conv_kernel_size is {conv_kernel}; wanted an odd number")
    return DebertaConfig(
        encoder=encoder,
        absolute=field(raw, "position_biased_input", bool, True),
        relative=field(raw, "relative_attention", bool, False),
        terms=_terms(raw),
        shared=field(raw, "share_att_key", bool, False),
        span=buckets or max_distance,
        buckets=buckets,
        max_distance=max_distance,
        normed="layer_norm" in _words(field(raw, "norm_rel_ebd", str, "none")),
        conv_kernel=conv_kernel,
        conv_groups=size(raw, "conv_groups", 1),
        conv_activation=activation(field(raw, "conv_act", str, "tanh")),
        pooler_activation=activation(field(raw, "pooler_hidden_act", str, "gelu")),
        pooler_dropout=rate(raw, "pooler_dropout", 0.0, dropout),
        head_dropout=rate(raw, "cls_dropout", encoder.hidden_dropout, dropout),
    )


def _terms(raw: Mapping[str, Any]) -> frozenset[str]:
    value = raw.get("pos_att_type") or []
    return frozenset(_words(value) if isinstance(value, str) else value) & {"c2p", "p2c"}


def _words(text: str) -> list[str]:
    """Lists in these configs are strings such as "p2c|c2p"."""
    return [word.strip() for word in text.lower().split("|")]


def bucket(distances: Int64[Tensor, " R"], *, buckets: int, max_distance: int) -> Int64[Tensor, " R"]:
    """Distances as they are up to buckets / 2, then in log steps that reach buckets - 1 at max_distance - 1.

    From `make_log_bucket_position` of microsoft/DeBERTa (DeBERTa/deberta/da_utils.py).
    """
    half = buckets // 2
    ratio = distances.abs().clamp(min=half).float() / half
    steps = torch.log(ratio) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    far = distances.sign() * (torch.ceil(steps) + half)
    return torch.where(distances.abs() <= half, distances, far.long())


@dataclass(frozen=True, slots=True, eq=False)
class Relative:
    """Relative positions of one forward pass.

    Args:
        table: the relative embeddings, by bucket.
        order: row of `table` for each distance from -longest to longest.
        longest: tokens of the longest row.
    """

    table: Float[Tensor, "S D"]
    order: Int64[Tensor, " R"]
    longest: int

    def ascending(self, lowest: int, count: int) -> Int64[Tensor, " C"]:
        """Rows of `table` for `count` distances from `lowest` up."""
        return self.order[self.longest + lowest :][:count]


def skew(by_distance: Float[Tensor, "n H a w"], width: int) -> Float[Tensor, "n H a b"]:
    """Row r of [a, a + width] from column a - 1 - r on: out[r, c] = x[r, a - 1 - r + c], as a view."""
    rows = by_distance.shape[-2]
    start, stride = rows - 1, rows + width - 1
    return by_distance.flatten(-2).narrow(-1, start, rows * stride).unflatten(-1, (rows, stride))[..., :width]


class DisentangledAttention(nn.Module):
    """Attention of content to content, content to position and position to content inside each row."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, terms = config.encoder.width, config.terms
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        own = config.relative and not config.shared
        self.pos_key_proj = nn.Linear(width, width) if own and "c2p" in terms else None
        self.pos_query_proj = nn.Linear(width, width) if own and "p2c" in terms else None
        self.pos_dropout = nn.Dropout(config.encoder.hidden_dropout)
        self.dropout = nn.Dropout(config.encoder.attention_dropout)
        self.num_heads = config.encoder.num_heads
        # The scale counts the terms named in config.json even where relative attention is off, as in transformers.
        self.scale = (width // self.num_heads * (1 + len(terms))) ** -0.5
        self.terms = terms

    def forward(
        self,
        queries: Float[Tensor, "M D"],
        hidden: Float[Tensor, "T D"],
        pack: Pack,
        group_queries: list[int],
        relative: Relative | None,
    ) -> Float[Tensor, "M D"]:
        positions = None if relative is None else self._project(relative)
        parts = zip(
            pack.group_rows,
            (self.query_proj(queries) * self.scale).split(group_queries),
            self.key_proj(hidden).split(pack.group_tokens),
            self.value_proj(hidden).split(pack.group_tokens),
            strict=True,
        )
        return torch.cat([self._attend(*part, relative, positions) for part in parts])

    def _project(self, relative: Relative) -> tuple[Float[Tensor, "1 H S d"], Float[Tensor, "1 H S d"]]:
        """Keys and (scaled) queries of every relative position: once per layer, for all rows of the batch."""
        table = self.pos_dropout(relative.table)
        key, query = self.pos_key_proj or self.key_proj, self.pos_query_proj or self.query_proj
        return split_heads(key(table), 1, self.num_heads), split_heads(query(table) * self.scale, 1, self.num_heads)

    def _attend(
        self,
        rows: int,
        query: Float[Tensor, "q D"],
        key: Float[Tensor, "k D"],
        value: Float[Tensor, "k D"],
        relative: Relative | None,
        positions: tuple[Float[Tensor, "1 H S d"], Float[Tensor, "1 H S d"]] | None,
    ) -> Float[Tensor, "q D"]:
        q, k, v = (split_heads(x, rows, self.num_heads) for x in (query, key, value))
        scores = q @ k.mT
        if relative is not None and positions is not None:
            scores = self._add_positions(scores, q, k, relative, positions)
        return join_heads(self.dropout(scores.softmax(-1)) @ v)

    def _add_positions(
        self,
        scores: Float[Tensor, "n H a b"],
        q: Float[Tensor, "n H a d"],
        k: Float[Tensor, "n H b d"],
        relative: Relative,
        positions: tuple[Float[Tensor, "1 H S d"], Float[Tensor, "1 H S d"]],
    ) -> Float[Tensor, "n H a b"]:
        asking, length = scores.shape[-2:]
        if "c2p" in self.terms:
            falling = relative.ascending(-length, asking + length).flip(0)
            scores = scores + skew(q @ positions[0].index_select(2, falling).mT, length)
        if "p2c" in self.terms:
            rising = relative.ascending(1 - length, length + asking)
            scores = scores + skew(k @ positions[1].index_select(2, rising).mT, asking).mT
        return scores


class Layer(nn.Module):
    """Attention and feed-forward; with `firsts_only` just for each row's first token: [T, D] -> [N, D]."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.attention = Attention(config.encoder, DisentangledAttention(config))
        self.intermediate = Intermediate(config.encoder)
        self.output = AddNorm(config.encoder, config.encoder.feed_forward_width)

    def forward(
        self, hidden: Float[Tensor, "T D"], pack: Pack, relative: Relative | None, firsts_only: bool
    ) -> Float[Tensor, "M D"]:
        queries = hidden[pack.firsts] if firsts_only else hidden
        group_queries = pack.group_rows if firsts_only else pack.group_tokens
        seen = self.attention.self(queries, hidden, pack, group_queries, relative)
        attended = self.attention.output(seen, queries)
        return self.output(self.intermediate(attended), attended)


class Convolution(nn.Module):
    """xlarge's and xxlarge's convolution over the embeddings of each row, added to layer 0's output."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, kernel = config.encoder.width, config.conv_kernel
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.conv_groups)
        self.LayerNorm = nn.LayerNorm(width, eps=config.encoder.norm_eps)
        self.dropout = nn.Dropout(config.encoder.hidden_dropout)
        self.activation = config.conv_activation

    def forward(
        self, embedded: Float[Tensor, "T D"], output: Float[Tensor, "T D"], pack: Pack
    ) -> Float[Tensor, "T D"]:
        groups = zip(pack.group_rows, embedded.split(pack.group_tokens), strict=True)
        seen = torch.cat([self._convolve(rows, group) for rows, group in groups])
        return self.LayerNorm(output + self.activation(self.dropout(seen)))

    def _convolve(self, rows: int, group: Float[Tensor, "k D"]) -> Float[Tensor, "k D"]:
        width = group.shape[-1]
        return self.conv(group.view(rows, -1, width).mT).mT.reshape(-1, width)


class Embeddings(nn.Module):
    """Words, with positions and token types where the model has them."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        encoder, width = config.encoder, config.encoder.embedding_width
        self.word_embeddings = nn.Embedding(encoder.vocab_size, width, padding_idx=encoder.padding_id)
        self.position_embeddings = nn.Embedding(encoder.num_positions, width) if config.absolute else None
        self.token_type_embeddings = nn.Embedding(encoder.num_types, width) if encoder.num_types else None
        self.embed_proj = nn.Linear(width, encoder.width, bias=False) if width != encoder.width else None
        self.LayerNorm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps)
        self.dropout = nn.Dropout(encoder.hidden_dropout)
        self.num_types = encoder.num_types

    def forward(self, pack: Pack) -> Float[Tensor, "T D"]:
        x = self.word_embeddings(pack.ids)
        if self.position_embeddings is not None:
            x = x + self.position_embeddings(pack.positions)
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings(pack.types.clamp(max=self.num_types - 1))
        if self.embed_proj is not None:
            x = self.embed_proj(x)
        return self.dropout(self.LayerNorm(x))


class Encoder(nn.Module):
    """The layers, the table of relative positions they share, and the convolution beside the first."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.layer = nn.ModuleList(Layer(config) for _ in range(encoder.num_layers))
        self.rel_embeddings = nn.Embedding(2 * config.span, encoder.width) if config.relative else None
        self.LayerNorm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps) if config.normed else None
        self.conv = Convolution(config) if config.conv_kernel else None
        self.span, self.buckets, self.max_distance = config.span, config.buckets, config.max_distance

    def forward(self, embedded: Float[Tensor, "T D"], pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        relative = self._relative(pack)
        hidden = embedded
        for number, layer in enumerate(self.layer):
            convolved = self.conv is not None and number == 0
            last = number == len(self.layer) - 1
            hidden = run_layer(layer, checkpointed, hidden, pack, relative, last and not convolved)
            if self.conv is not None and convolved:
                hidden = self.conv(embedded, hidden, pack)
                hidden = hidden[pack.firsts] if last else hidden
        return hidden

    def _relative(self, pack: Pack) -> Relative | None:
        if self.rel_embeddings is None:
            return None
        table = self.rel_embeddings.weight
        table = table if self.LayerNorm is None else self.LayerNorm(table)
        distances = torch.arange(-pack.longest, pack.longest + 1)
        if self.buckets:
            distances = bucket(distances, buckets=self.buckets, max_distance=self.max_distance)
        order = (distances + self.span).clamp(0, 2 * self.span - 1).to(table.device)
        return Relative(table=table, order=order, longest=pack.longest)


class Backbone(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pack: Pack, checkpointed: bool) -> Float[Tensor, "N D"]:
        return self.encoder(self.embeddings(pack), pack, checkpointed)


class ContextPooler(nn.Module):
    """A dense layer and an activation on the first token."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.encoder.width, config.encoder.width)
        self.dropout = nn.Dropout(config.pooler_dropout)
        self.activation = config.pooler_activation

    def forward(self, firsts: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return self.activation(self.dense(self.dropout(firsts)))


class DebertaNetwork(nn.Module):
    """A DeBERTa-v2 or v3 reward model: `network(batch)` gives [N] float32 scores.

    `config` is the raw config.json. `max_positions` is the longest row, None where positions are only relative.
    Set `gradient_checkpointing` to keep no activations inside layers while training.
    """

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        config = read_deberta_config(raw, dropout=dropout)
        self.config: dict[str, Any] = dict(raw)
        self.max_positions: int | None = config.encoder.num_positions if config.absolute else None
        self.gradient_checkpointing = False
        self.vocab_size = config.encoder.vocab_size
        self.deberta = Backbone(config)
        self.pooler = ContextPooler(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.encoder.width, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " N"]:
        device = self.classifier.weight.device
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=self.max_positions, device=device)
        firsts = self.deberta(pack, self.gradient_checkpointing)
        return self.classifier(self.dropout(self.pooler(firsts))).squeeze(-1).float()
