"""The exact engine: a layout scored in plain PyTorch, on any device, in the dtype of its weights.

It gives the scores of the module tree (`bert.py`, `deberta.py`) from the same weights, with less work and memory:

- identical rows of a batch are scored once; rows are sorted by length, and nothing is padded or masked;
- attention runs in tiles of some heads and rows, and what follows it in blocks of rows, so that neither the [L, L]
  scores nor the feed-forward's wide activations leave the cache;
- of DeBERTa's relative distances a tile multiplies only those between its own tokens;
- where layer 0's input depends on the token id alone, it is projected once for each distinct id of the batch;
- the last layer answers for each row's first token only. Its values are never computed, nor its keys where no position
  reads them: the projection is applied to the weighted sum of hidden states, or to the query, which is the same sum.

Sums in another order move a float32 score in its last digits, and the shape of a matrix product decides its order: a
row's score is the same in any batch to 1e-5. With `deterministic` it is the same to the bit: every distinct row is
computed on its own, so that all shapes depend on its length alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from prefrank.model.distances import skew
from prefrank.model.layout import Convolution, Layer, Layout, Linear, Norm
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.linear import ONEDNN
from prefrank.types import Batch

# Measured on Zen 4 (1 MB of L2) with DeBERTa-v3-base's shape: twice or half of each costs less than 3 %.
BLOCK_ROWS = 512
TILE_SCORES = 2**18
TILE_DISTANCES = 96


class TorchEngine:
    """`engine(batch)` gives [N] float32 scores on the CPU, in the batch's order, without gradient.

    Args:
        deterministic: a row's score is the same to the bit in any batch, at the same number of threads.

    A score that is not a number is returned as it is. BadInput for a row longer than the model's position table, or a
    token id it has no embedding for.
    """

    kernels = "torch"
    streams = 1

    def __init__(self, layout: Layout, *, deterministic: bool = False) -> None:
        self.layout = layout
        self.deterministic = deterministic
        self.precision = str(layout.embeddings.words.dtype).removeprefix("torch.")

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        chosen, copies = _distinct(batch, typed=self.layout.embeddings.typed)
        parts = [[row] for row in chosen] if self.deterministic else [chosen]
        with torch.inference_mode():
            scores = torch.cat([self._score(select_rows(batch, part)) for part in parts]).float().cpu()
        return scores[torch.from_numpy(copies)]  # copied outside inference mode: an ordinary tensor

    def _score(self, batch: Batch) -> Float[Tensor, " N"]:
        layout = self.layout
        run = _Run.of(layout, batch)
        firsts_only = layout.convolution is None or len(layout.layers) > 1
        full = layout.layers[:-1] if firsts_only else layout.layers
        hidden = _full_layers(run, full, distinct=layout.positionless and not self.deterministic)
        firsts = _last_layer(run, layout.layers[-1], hidden) if firsts_only else hidden[run.pack.firsts]
        head = layout.head
        inner = head.activation(_linear(firsts.to(head.dense.weight.dtype), head.dense))
        return _linear(inner, head.output).squeeze(-1)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One batch on its way through a model.

    Args:
        rising: rows of the tables of relative positions for the distances i - j from -`longest` to `longest`.
    """

    layout: Layout
    pack: Pack
    rising: Int64[Tensor, " R"] | None

    @staticmethod
    def of(layout: Layout, batch: Batch) -> "_Run":
        device = layout.embeddings.words.device
        pack = pack_batch(batch, vocab_size=layout.vocab_size, max_positions=layout.max_positions, device=device)
        distances = layout.distances
        return _Run(layout, pack, None if distances is None else distances.rows(pack.longest).to(device))

    def groups(self, x: Float[Tensor, "T D"]) -> Iterator[Float[Tensor, "n L D"]]:
        """The rows in groups of one length."""
        for rows, part in zip(self.pack.group_rows, x.split(self.pack.group_tokens), strict=True):
            yield part.unflatten(0, (rows, -1))

    def heads(self, x: Float[Tensor, "*n l D"]) -> Float[Tensor, "*n H l d"]:
        return x.unflatten(-1, (self.layout.num_heads, -1)).transpose(-3, -2)

    def lay_out(
        self, table: Float[Tensor, "S D"] | None, order: Int64[Tensor, " R"] | None
    ) -> Float[Tensor, "H R d"] | None:
        """A layer's table of relative positions in the order of distances, with the heads apart."""
        if table is None or order is None:
            return None
        return self.heads(table.index_select(0, order))


def _distinct(batch: Batch, *, typed: bool) -> tuple[list[int], Int64[np.ndarray, " N"]]:
    """Rows that differ, shortest first, and where in that list each row of the batch has its like."""
    likes: dict[tuple[bytes, bytes], list[int]] = {}
    for row, (start, end) in enumerate(zip(batch.starts[:-1], batch.starts[1:], strict=True)):
        key = (batch.ids[start:end].tobytes(), batch.types[start:end].tobytes() if typed else b"")
        likes.setdefault(key, []).append(row)
    copies = np.empty(len(batch.rows), np.int64)
    groups = sorted(likes.values(), key=lambda rows: batch.starts[rows[0] + 1] - batch.starts[rows[0]])
    for place, rows in enumerate(groups):
        copies[rows] = place
    return [rows[0] for rows in groups], copies


def select_rows(batch: Batch, rows: list[int]) -> Batch:
    """A batch of these rows of `batch`, in this order."""
    parts = [slice(batch.starts[row], batch.starts[row + 1]) for row in rows]
    return Batch(
        ids=np.concatenate([batch.ids[part] for part in parts]),
        types=np.concatenate([batch.types[part] for part in parts]),
        rows=np.arange(len(rows)),
        starts=np.cumsum([0, *(part.stop - part.start for part in parts)]),
    )


def _linear(x: Float[Tensor, "M I"], linear: Linear, scale: float = 1.0) -> Float[Tensor, "M O"]:
    """scale * (x W^T + b)."""
    if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        y = torch.ops.mkldnn._linear_pointwise(x, linear.weight, linear.bias, "none", [], "")
        return y if scale == 1.0 else y.mul_(scale)
    if scale == 1.0 or linear.bias is None:
        return F.linear(x * scale if scale != 1.0 else x, linear.weight, linear.bias)
    return torch.addmm(linear.bias, x, linear.weight.mT, beta=scale, alpha=scale)


def _norm(x: Float[Tensor, "M D"], norm: Norm) -> Float[Tensor, "M D"]:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def _full_layers(run: _Run, layers: tuple[Layer, ...], *, distinct: bool) -> Float[Tensor, "T D"]:
    """Embeddings, and the layers that are computed for every token; `distinct`: the first per token id."""
    ids, places = run.pack.ids, None
    if distinct and layers:
        ids, places = ids.unique(return_inverse=True)
    hidden = embedded = _embed(run, ids)
    for number, layer in enumerate(layers):
        hidden = _layer(run, layer, hidden, places if number == 0 else None)
        if number == 0 and run.layout.convolution is not None:
            embedded = embedded if places is None else embedded[places]
            hidden = _convolve(run.layout.convolution, embedded, hidden, run.pack)
    return hidden


def _embed(run: _Run, ids: Int64[Tensor, " U"]) -> Float[Tensor, "U D"]:
    """Embeddings of the batch's tokens, or of any ids where the model knows neither positions nor types."""
    embeddings, pack = run.layout.embeddings, run.pack
    x = F.embedding(ids, embeddings.words)
    if embeddings.positions is not None:
        x += F.embedding(pack.positions + embeddings.first_position, embeddings.positions)
    if embeddings.types is not None:
        x += F.embedding(pack.types, embeddings.types) if embeddings.typed else embeddings.types[0]
    projection = embeddings.projection
    if projection is None:
        return _norm(x, embeddings.norm)
    if embeddings.projected_first:
        return _norm(_linear(x, projection), embeddings.norm)
    return _linear(_norm(x, embeddings.norm), projection)


def _layer(
    run: _Run, layer: Layer, hidden: Float[Tensor, "U D"], places: Int64[Tensor, " T"] | None
) -> Float[Tensor, "T D"]:
    """One layer for every token; `places` says which row of `hidden` a token has, where they are fewer."""
    query = _linear(hidden, layer.query, run.layout.scale)
    key, value = _linear(hidden, layer.key), _linear(hidden, layer.value)
    if places is not None:
        hidden, query, key, value = (x.index_select(0, places) for x in (hidden, query, key, value))
    return _after_attention(run.layout, layer, _attend(run, layer, query, key, value), hidden)


def _after_attention(
    layout: Layout, layer: Layer, seen: Float[Tensor, "M D"], hidden: Float[Tensor, "M D"]
) -> Float[Tensor, "M D"]:
    """The rest of a layer, token by token, in blocks of rows."""
    blocks = []
    rows = BLOCK_ROWS if seen.device.type == "cpu" else len(seen)
    for x, residual in zip(seen.split(rows), hidden.split(rows), strict=True):
        attended = _norm(_linear(x, layer.attention_output).add_(residual), layer.attention_norm)
        inner = layout.activation(_linear(attended, layer.up))
        blocks.append(_norm(_linear(inner, layer.down).add_(attended), layer.output_norm))
    return torch.cat(blocks)


def _attend(
    run: _Run, layer: Layer, query: Float[Tensor, "T D"], key: Float[Tensor, "T D"], value: Float[Tensor, "T D"]
) -> Float[Tensor, "T D"]:
    falling = None if run.rising is None else run.rising.flip(0)
    keys, queries = run.lay_out(layer.position_keys, falling), run.lay_out(layer.position_queries, run.rising)
    seen = torch.empty_like(query)
    for q, k, v, out in zip(*(map(run.heads, run.groups(x)) for x in (query, key, value, seen)), strict=True):
        if keys is None and queries is None:
            out.copy_(F.scaled_dot_product_attention(q, k, v, scale=1.0))
            continue
        for rows, heads in _tiles(q):
            tile = rows, heads
            some = [None if x is None else x[heads] for x in (keys, queries)]
            out[tile] = _attend_tile(q[tile], k[tile], v[tile], *some, longest=run.pack.longest)
    return seen


def _tiles(q: Float[Tensor, "n H L d"]) -> Iterator[tuple[slice, slice]]:
    """Rows and heads of each tile: on the CPU at most TILE_SCORES scores, but at least one head."""
    rows, heads, length, _ = q.shape
    most = max(1, TILE_SCORES // length**2) if q.device.type == "cpu" else rows * heads
    some_rows, some_heads = max(1, most // heads), min(most, heads)
    for row in range(0, rows, some_rows):
        for head in range(0, heads, some_heads):
            yield slice(row, row + some_rows), slice(head, head + some_heads)


def _attend_tile(
    q: Float[Tensor, "n h L d"],
    k: Float[Tensor, "n h L d"],
    v: Float[Tensor, "n h L d"],
    keys: Float[Tensor, "h R d"] | None,
    queries: Float[Tensor, "h R d"] | None,
    *,
    longest: int,
) -> Float[Tensor, "n h L d"]:
    """DeBERTa's attention (He et al. 2021, eq. 4) with the shifted views of `disentangled.py`.

    Args:
        keys: what positions add to a query (c2p), for distances falling from `longest`.
        queries: what positions ask of a key (p2c), for distances rising from -`longest`.
    """
    length = q.shape[2]
    scores = q @ k.mT
    step = -(-length // -(-length // TILE_DISTANCES))  # equal parts
    for start in range(0, length, step):
        end = min(start + step, length)
        reach = slice(longest - end + 1, longest - start + 1 + length)
        if keys is not None:  # queries start to end: distances from end - 1 down to start - length
            scores[:, :, start:end] += skew(q[:, :, start:end] @ keys[:, reach].mT, length)
        if queries is not None:  # keys start to end: distances from 1 - end up to length - start
            scores[..., start:end] += skew(k[:, :, start:end] @ queries[:, reach].mT, length).mT
    return scores.softmax(-1) @ v


def _last_layer(run: _Run, layer: Layer, hidden: Float[Tensor, "T D"]) -> Float[Tensor, "N D"]:
    """The last layer for each row's first token, without values: their projection follows the weighted sum."""
    firsts = hidden[run.pack.firsts]
    scores = _first_scores(run, layer, hidden, firsts)
    means = torch.cat([part.softmax(-1) @ states for part, states in zip(scores, run.groups(hidden), strict=True)])
    matrices = layer.value.weight.unflatten(0, (run.layout.num_heads, -1)).mT
    seen = _by_head(means, matrices).flatten(-2)
    if layer.value.bias is not None:
        seen += layer.value.bias  # the weights of a sum add up to 1
    return _after_attention(run.layout, layer, seen, firsts)


def _first_scores(
    run: _Run, layer: Layer, hidden: Float[Tensor, "T D"], firsts: Float[Tensor, "N D"]
) -> Iterator[Float[Tensor, "n H L"]]:
    """The first token's attention scores, for each group of rows: distances are 0, -1, -2 ..."""
    rows, heads = run.pack.group_rows, run.layout.num_heads
    falling = None if run.rising is None else run.rising.flip(0)[run.pack.longest :]
    keys, queries = run.lay_out(layer.position_keys, falling), run.lay_out(layer.position_queries, falling)
    query = _linear(firsts, layer.query, run.layout.scale).unflatten(-1, (heads, -1))
    if queries is None:  # q.(W x + b) = (W^T q).x + q.b, and softmax ignores q.b: keys are not needed
        asking, asked = _by_head(query, layer.key.weight.unflatten(0, (heads, -1))), hidden
    else:
        asking, asked = query, _linear(hidden, layer.key)
    for q, u, x in zip(query.split(rows), asking.split(rows), run.groups(asked), strict=True):
        length = x.shape[1]
        if queries is None:
            scores = u @ x.mT
        else:
            scores = ((u[:, :, None] + queries[:, :length]) * run.heads(x)).sum(-1)
        if keys is not None:
            scores += (q[:, :, None] * keys[:, :length]).sum(-1)
        yield scores


def _by_head(x: Float[Tensor, "N H a"], matrices: Float[Tensor, "H a b"]) -> Float[Tensor, "N H b"]:
    return torch.bmm(x.transpose(0, 1), matrices).transpose(0, 1)


def _convolve(
    conv: Convolution, embedded: Float[Tensor, "T D"], output: Float[Tensor, "T D"], pack: Pack
) -> Float[Tensor, "T D"]:
    """The convolution over each row's embeddings: all rows in one sequence, with zeros around each."""
    margin = conv.weight.shape[-1] // 2
    rows = (pack.positions == 0).cumsum(0)  # 1, 1, ..., 2, ...
    places = torch.arange(len(embedded), device=rows.device) + margin * rows
    padded = embedded.new_zeros(len(embedded) + margin * (len(pack.firsts) + 1), embedded.shape[1])
    padded[places] = embedded
    convolved = F.conv1d(padded.mT[None], conv.weight, conv.bias, groups=conv.groups)[0].mT
    return _norm(conv.activation(convolved[places - margin]).add_(output), conv.norm)
