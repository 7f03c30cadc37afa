"""DeBERTa-v2's disentangled attention on packed batches, without [L, L] index tensors.

The score of query i and key j is q_i.k_j + q_i.PK[b(i-j)] + k_j.PQ[b(i-j)], all over sqrt(terms x head width)
(He et al. 2021, DeBERTa, eq. 4, with the log buckets b of v2). transformers gathers the two position terms
with an index per (i, j). Here PK and PQ are laid out by distance first, so that each term is one matrix
product and a skewed view of it: row i starts one distance later than row i-1.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.model.distances import skew
from prefrank.model.families.deberta_config import DebertaConfig
from prefrank.model.families.tiles import attend_in_tiles
from prefrank.model.flash import PackedRows, Slots, attend
from prefrank.model.integer_weights import FixedPositions, check_finite, outside_heap, quantise_table
from prefrank.model.layout import Layer
from prefrank.model.linear import Linear, only_read
from prefrank.model.pack import Pack
from prefrank.model.packed_encoder import Dropout, can_fold, join_heads, project_by_head, split_heads


@dataclass(frozen=True, slots=True, eq=False)
class Relative:
    """Relative positions of one forward pass.

    Args:
        table: the relative embeddings, by bucket.
        order: row of `table` for each distance from -longest to longest.
        longest: tokens of the longest row.
        projected: what the layer makes of `table` (`DisentangledAttention.project`), where that is known already.
        slots: where attention is one kernel call, what it reads of `table`.
    """

    table: Float[Tensor, "S D"]
    order: Int64[Tensor, " R"]
    longest: int
    projected: list[Tensor] | None = None
    slots: Slots | None = None

    def ascending(self, lowest: int, count: int) -> Int64[Tensor, " C"]:
        """Rows of `table` for `count` distances from `lowest` up."""
        return self.order[self.longest + lowest :][:count]


class DisentangledAttention(nn.Module):
    """Attention of content to content, content to position and position to content inside each row."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, terms = config.encoder.width, config.terms
        self.query_proj = Linear(width, width)
        self.key_proj = Linear(width, width)
        self.value_proj = Linear(width, width)
        own = config.relative and not config.shared
        self.pos_key_proj: Linear | FixedPositions | None = None
        self.pos_query_proj: Linear | FixedPositions | None = None
        if own and "c2p" in terms:
            self.pos_key_proj = Linear(width, width)
        if own and "p2c" in terms:
            self.pos_query_proj = Linear(width, width)
        self.pos_dropout = Dropout(config.encoder.hidden_dropout)
        self.dropout = Dropout(config.encoder.attention_dropout)
        self.num_heads = config.encoder.num_heads
        # The scale counts the terms named in config.json even where relative attention is off, as in transformers.
        self.scale = (width // self.num_heads * (1 + len(terms))) ** -0.5
        # In the order in which `project` gives them; none where the model knows no relative positions.
        self.terms = tuple(term for term in ("c2p", "p2c") if config.relative and term in terms)
        self.step_positions: list[Tensor] | None = None

    def forward(
        self,
        queries: Float[Tensor, "M D"],
        hidden: Float[Tensor, "T D"],
        pack: Pack,
        group_queries: list[int],
        relative: Relative | None,
    ) -> Float[Tensor, "M D"]:
        if pack.fused is not None:
            return self._in_one_call(queries, hidden, pack.fused, relative)
        if relative is not None and len(queries) == len(hidden) and only_read(self):
            return self._in_tiles(hidden, pack, relative)
        positions = [split_heads(table, 1, self.num_heads) for table in self._positions(relative)]
        folded = len(queries) < len(hidden) and can_fold(self.value_proj, device=hidden.device)
        parts = zip(
            pack.group_rows,
            (self.query_proj(queries) * self.scale).split(group_queries),
            self.key_proj(hidden).split(pack.group_tokens),
            (hidden if folded else self.value_proj(hidden)).split(pack.group_tokens),
            strict=True,
        )
        if not folded:
            return torch.cat(
                [
                    join_heads(shares @ split_heads(value, rows, self.num_heads))
                    for rows, shares, value in self._shares(parts, relative, positions)
                ]
            )
        means, weights = [], []
        for rows, shares, x in self._shares(parts, relative, positions):
            means.append(shares.squeeze(2) @ x.unflatten(0, (rows, -1)))
            weights.append(shares.sum(-1).squeeze(2))
        return project_by_head(torch.cat(means), self.value_proj, torch.cat(weights))

    def _in_tiles(self, hidden: Float[Tensor, "T D"], pack: Pack, relative: Relative) -> Float[Tensor, "T D"]:
        """Attention of every token, where it is only read."""
        tables = {}
        for term, table in zip(self.terms, self._positions(relative), strict=True):
            order = relative.order.flip(0) if term == "c2p" else relative.order
            tables[term] = split_heads(table.index_select(0, order), 1, self.num_heads)[0]
        query = self.query_proj(hidden).mul_(self.scale)
        seen = torch.empty_like(query)
        parts = (x.split(pack.group_tokens) for x in (query, self.key_proj(hidden), self.value_proj(hidden), seen))
        for rows, *group in zip(pack.group_rows, *parts, strict=True):
            q, k, v, out = (split_heads(x, rows, self.num_heads) for x in group)
            attend_in_tiles(q, k, v, tables.get("c2p"), tables.get("p2c"), out)
        return seen

    def _in_one_call(
        self,
        queries: Float[Tensor, "M D"],
        hidden: Float[Tensor, "T D"],
        rows: PackedRows,
        relative: Relative | None,
    ) -> Float[Tensor, "M D"]:
        positions = dict(zip(self.terms, self._positions(relative), strict=False))
        return attend(
            self.query_proj(queries) * self.scale,
            self.key_proj(hidden),
            self.value_proj(hidden),
            num_heads=self.num_heads,
            rows=rows,
            dropout=self.dropout.p if self.training else 0.0,
            slots=None if relative is None else relative.slots,
            position_keys=positions.get("c2p"),
            position_queries=positions.get("p2c"),
        )

    def project(self, table: Float[Tensor, "S D"]) -> list[Float[Tensor, "S D"]]:
        """What `terms` read of every relative position: keys for c2p, scaled queries for p2c."""
        table = self.pos_dropout(table)
        key, query = self.position_projections()
        return [key(table) if term == "c2p" else query(table) * self.scale for term in self.terms]

    def position_projections(self) -> tuple[nn.Module, nn.Module]:
        """What relative positions go through to become keys (c2p) and queries (p2c)."""
        return self.pos_key_proj or self.key_proj, self.pos_query_proj or self.query_proj

    def _positions(self, relative: Relative | None) -> list[Float[Tensor, "S D"]]:
        if relative is None:
            return []
        if relative.projected is not None:
            return relative.projected
        return self.project(relative.table) if self.step_positions is None else self.step_positions

    def _shares(
        self,
        parts: Iterable[tuple[int, Tensor, Tensor, Tensor]],
        relative: Relative | None,
        positions: list[Float[Tensor, "1 H S d"]],
    ) -> Iterator[tuple[int, Float[Tensor, "n H a b"], Float[Tensor, "k D"]]]:
        """Attention's weights of each group of rows, with what they weigh."""
        for rows, query, key, value in parts:
            q, k = (split_heads(x, rows, self.num_heads) for x in (query, key))
            scores = q @ k.mT
            if relative is not None:
                scores = self._add_positions(scores, q, k, relative, positions)
            yield rows, self.dropout(scores.softmax(-1)), value

    def _add_positions(
        self,
        scores: Float[Tensor, "n H a b"],
        q: Float[Tensor, "n H a d"],
        k: Float[Tensor, "n H b d"],
        relative: Relative,
        positions: list[Float[Tensor, "1 H S d"]],
    ) -> Float[Tensor, "n H a b"]:
        asking, length = scores.shape[-2:]
        for term, table in zip(self.terms, positions, strict=True):
            if term == "c2p":
                falling = relative.ascending(-length, asking + length).flip(0)
                scores = scores + skew(q @ table.index_select(2, falling).mT, length)
            elif asking == 1 and only_read(self):  # each key meets one position
                falling = relative.ascending(1 - length, length).flip(0)
                scores = scores + (k * table.index_select(2, falling)).sum(-1)[:, :, None]
            else:
                rising = relative.ascending(1 - length, length + asking)
                scores = scores + skew(k @ table.index_select(2, rising).mT, asking).mT
        return scores


def lay_out_positions(attention: DisentangledAttention, layer: Layer, table: Float[Tensor, "S D"]) -> Layer:
    """A layer's layout with its relative embeddings: through its projections, always float ones (`FixedPositions`)."""
    key, query = attention.position_projections()
    keys = _lay_out_table(key, table, 1.0) if "c2p" in attention.terms else (None, None)
    queries = _lay_out_table(query, table, attention.scale) if "p2c" in attention.terms else (None, None)
    return replace(
        layer,
        position_keys=keys[0],
        position_keys_scale=keys[1],
        position_queries=queries[0],
        position_queries_scale=queries[1],
    )


def _lay_out_table(
    projection: nn.Module, table: Float[Tensor, "S D"], scale: float
) -> tuple[Tensor, Float[Tensor, "S H"] | None]:
    if isinstance(projection, FixedPositions):
        return projection.projected.detach(), projection.projected_scale.detach() * scale
    projected = projection(table).detach()
    return projected if scale == 1.0 else projected * scale, None


def fix_layer(
    attention: DisentangledAttention, name: str, table: Float[Tensor, "S D"], read: Callable[[str], Tensor]
) -> None:
    """Replace what a layer projects relative positions with by the result, in integers.

    Args:
        name: of the attention among the network's modules.
        read: gives a weight by its name, in any float type.
    """
    key, query = attention.pos_key_proj, attention.pos_query_proj
    if "c2p" in attention.terms:
        used = (attention.key_proj, "key_proj") if not isinstance(key, Linear) else (key, "pos_key_proj")
        attention.pos_key_proj = _fixed(*used, attention, name, table, read)
    if "p2c" in attention.terms:
        used = (attention.query_proj, "query_proj") if not isinstance(query, Linear) else (query, "pos_query_proj")
        attention.pos_query_proj = _fixed(*used, attention, name, table, read)


def _fixed(
    projection: Linear,
    child: str,
    attention: DisentangledAttention,
    name: str,
    table: Float[Tensor, "S D"],
    read: Callable[[str], Tensor],
) -> FixedPositions:
    projected = outside_heap(table, table.shape, torch.float32)
    if not table.is_meta:
        weight = read(f"{name}.{child}.weight").float()
        torch.addmm(projection.bias, table, weight.mT, out=projected)
    integers, scales = quantise_table(projected, attention.num_heads)
    check_finite(scales, f"{name}.{child}.weight")
    return FixedPositions(integers, scales)
