"""DeBERTa-v2 and v3 on packed batches: embeddings, layers, the convolution of xlarge and xxlarge, and the head.

The convolution runs over each row on its own, so that no row leaks into its neighbor in the pack. The last
layer computes only each row's first token, the one that is pooled; nothing else reads the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.io.json_files import Fields
from prefrank.model import layout as laid
from prefrank.model.families.deberta_config import DebertaConfig, read_deberta_config
from prefrank.model.families.disentangled import DisentangledAttention, Relative, fix_layer, lay_out_positions
from prefrank.model.flash import lay_slots, obstacle
from prefrank.model.heads import ONLY_HEAD, HeadLinear
from prefrank.model.linear import Linear
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.packed_encoder import (
    Dropout,
    Embedding,
    Layer,
    run_layer,
    shared,
)
from prefrank.types import Batch, Causal


class Convolution(nn.Module):
    """xlarge's and xxlarge's convolution over the embeddings of each row, added to layer 0's output."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, kernel = config.encoder.width, config.conv_kernel
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.conv_groups)
        self.LayerNorm = nn.LayerNorm(width, eps=config.encoder.norm_eps)
        self.dropout = Dropout(config.encoder.hidden_dropout)
        self.activation = config.conv_activation

    def forward(self, embedded: Float[Tensor, "T D"], output: Float[Tensor, "T D"], pack: Pack) -> Float[Tensor, "T D"]:
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
        self.word_embeddings = Embedding(encoder.vocab_size, width, padding_idx=encoder.padding_id)
        self.position_embeddings = nn.Embedding(encoder.num_positions, width) if config.absolute else None
        self.token_type_embeddings = nn.Embedding(encoder.num_types, width) if encoder.num_types else None
        self.embed_proj = Linear(width, encoder.width, bias=False) if width != encoder.width else None
        self.LayerNorm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps)
        self.dropout = Dropout(encoder.hidden_dropout)
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
        self.layer = nn.ModuleList(Layer(encoder, DisentangledAttention(config)) for _ in range(encoder.num_layers))
        self.rel_embeddings = nn.Embedding(2 * config.distances.span, encoder.width) if config.relative else None
        self.LayerNorm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps) if config.normed else None
        self.conv = Convolution(config) if config.conv_kernel else None
        self.distances = config.distances

    def forward(
        self,
        embedded: Float[Tensor, "T D"],
        pack: Pack,
        checkpointed: bool,
        positions: list[list[Tensor]] | None,
    ) -> Float[Tensor, "N D"]:
        relative = self._relative(pack)
        hidden = embedded
        for number, layer in enumerate(self.layer):
            convolved = self.conv is not None and number == 0
            if relative is not None and positions is not None:
                relative = replace(relative, projected=positions[number])
            last = number == len(self.layer) - 1
            hidden = run_layer(layer, checkpointed, hidden, pack, last and not convolved, relative)
            if self.conv is not None and convolved:
                hidden = self.conv(embedded, hidden, pack)
                hidden = hidden[pack.firsts] if last else hidden
        return hidden

    def table(self) -> Float[Tensor, "S D"] | None:
        """The relative embeddings by bucket, normed where the model norms them."""
        if self.rel_embeddings is None:
            return None
        table = self.rel_embeddings.weight
        return table if self.LayerNorm is None else self.LayerNorm(table)

    def positions(self) -> list[list[Tensor]]:
        """What each layer makes of the relative embeddings."""
        table = self.table()
        return [[] if table is None else layer.attention.self.project(table) for layer in self.layers()]

    def layers(self) -> list[Layer[DisentangledAttention]]:
        """The layers, from below."""
        return [layer for layer in self.layer if isinstance(layer, Layer)]

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Inside the block, the projections of relative positions are made once, for all micro-batches."""
        table = self.table()
        if table is None:
            yield
            return
        attentions = [layer.attention.self for layer in self.layers()]
        with shared(lambda: [part for parts in self.positions() for part in parts]) as leaves:
            given = iter(leaves)
            for attention in attentions:
                attention.step_positions = [next(given) for _ in attention.terms]
            try:
                yield
            finally:
                for attention in attentions:
                    attention.step_positions = None

    def _relative(self, pack: Pack) -> Relative | None:
        table = self.table()
        if table is None:
            return None
        order = self.distances.rows(pack.longest)
        slots = None if pack.fused is None else lay_slots(order, table.device)
        return Relative(table=table, order=order.to(table.device), longest=pack.longest, slots=slots)


class Backbone(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pack: Pack, checkpointed: bool, positions: list[list[Tensor]] | None) -> Float[Tensor, "N D"]:
        return self.encoder(self.embeddings(pack), pack, checkpointed, positions)


class ContextPooler(nn.Module):
    """A dense layer and an activation on the first token."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.dense = HeadLinear(config.encoder.width, config.encoder.width)
        self.dropout = Dropout(config.pooler_dropout)
        self.activation = config.pooler_activation

    def forward(self, firsts: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return self.activation(self.dense(self.dropout(firsts)))


class DebertaNetwork(nn.Module):
    """A DeBERTa-v2 or v3 reward model: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    `config` is the raw config.json. `max_positions` is the longest row, None where positions are only relative.
    Set `gradient_checkpointing` to keep no activations inside layers while training, and `fused` to have attention in
    one kernel call, where `obstacle` is None.
    """

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        config = read_deberta_config(Fields.of(raw), dropout=dropout)
        self.config: dict[str, Any] = dict(raw)
        self.max_positions: int | None = config.encoder.num_positions if config.absolute else None
        self.gradient_checkpointing = False
        self.fused = False
        self.causal: Causal | None = None
        self.heads: tuple[str, ...] = (ONLY_HEAD,)
        self.backbone = "deberta"
        self.uncut: dict[str, Tensor] = {}
        self.output_layer = "classifier"
        self.vocab_size = config.encoder.vocab_size
        self.head_width = config.encoder.width // config.encoder.num_heads
        self.deberta = Backbone(config)
        self.pooler = ContextPooler(config)
        self.dropout = Dropout(config.head_dropout)
        self.classifier = HeadLinear(config.encoder.width, 1)

    def obstacle(self) -> str | None:
        """Why `fused` cannot be set here, as the end of a sentence; None where it can."""
        return obstacle(device=self.classifier.weight.device, head_width=self.head_width)

    @contextmanager
    def sharing(self, ids: Int64[np.ndarray, " T"]) -> Iterator[None]:
        """What the micro-batches of a step share: their rows of the word table, and the projections of relative
        positions. `ids` are those of the step.
        """
        with self.deberta.embeddings.word_embeddings.sharing(ids), self.deberta.encoder.sharing():
            yield

    def forward(self, batch: Batch, positions: list[list[Tensor]] | None = None) -> Float[Tensor, "N *H"]:
        """`positions` are `Encoder.positions`, where the weights stay as they are."""
        device, limit = self.classifier.weight.device, self.max_positions
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=limit, device=device, fused=self.fused)
        firsts = self.deberta(pack, self.gradient_checkpointing, positions)
        return self.classifier(self.dropout(self.pooler(firsts))).squeeze(-1).float()


def scorer(network: DebertaNetwork) -> Callable[[Batch], Tensor]:
    """The forward pass with relative positions projected once, as the weights stay."""
    with torch.no_grad():
        return partial(network, positions=network.deberta.encoder.positions())


def lay_out(network: DebertaNetwork) -> laid.Layout:
    """The layout of a network, float or quantized, which shares its weights."""
    words, encoder, pooler = network.deberta.embeddings, network.deberta.encoder, network.pooler
    layers = encoder.layers()
    attention = layers[0].attention.self
    table, types, positions = encoder.table(), words.token_type_embeddings, words.position_embeddings
    return laid.Layout(
        num_heads=attention.num_heads,
        scale=attention.scale,
        activation=layers[0].intermediate.activation,
        embeddings=laid.Embeddings(
            words.word_embeddings.weight.detach(),
            None if positions is None else positions.weight.detach(),
            None if types is None else types.weight.detach(),
            laid.norm(words.LayerNorm),
            None if words.embed_proj is None else laid.linear(words.embed_proj),
            first_position=0,
            typed=words.num_types > 1,
            projected_first=True,
        ),
        layers=tuple(_lay_out_layer(layer, table) for layer in layers),
        convolution=None if encoder.conv is None else _lay_out_convolution(encoder.conv),
        distances=None if table is None else encoder.distances,
        head=laid.Head(laid.head_linear(pooler.dense), pooler.activation, laid.head_linear(network.classifier)),
        vocab_size=network.vocab_size,
        max_positions=network.max_positions,
    )


def _lay_out_layer(layer: Layer[DisentangledAttention], table: Float[Tensor, "S D"] | None) -> laid.Layer:
    inner = layer.attention.self
    projections = inner.query_proj, inner.key_proj, inner.value_proj
    plain = laid.layer(*projections, layer.attention.output, layer.intermediate, layer.output)
    return plain if table is None else lay_out_positions(inner, plain, table)


def _lay_out_convolution(module: Convolution) -> laid.Convolution:
    conv = module.conv
    assert conv.bias is not None
    return laid.Convolution(
        conv.weight.detach(), conv.bias.detach(), conv.groups, module.activation, laid.norm(module.LayerNorm)
    )


def fix_positions(network: DebertaNetwork, read: Callable[[str], Tensor]) -> None:
    """Replace the projections of relative positions by their results in integers, computed from the float weights.

    Args:
        read: gives a weight by its name, in any float type.
    """
    encoder = network.deberta.encoder
    if encoder.rel_embeddings is None:
        return
    table = encoder.rel_embeddings.weight
    if encoder.LayerNorm is not None and not table.is_meta:  # there it makes torch import its compiler
        table = encoder.LayerNorm(table)
    for number, layer in enumerate(encoder.layers()):
        fix_layer(layer.attention.self, f"deberta.encoder.layer.{number}.attention.self", table, read)
