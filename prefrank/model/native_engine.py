"""The native engine: a laid-out model scored by the C++ kernels of `prefrank.native`.

One call scores one chunk of rows on the calling thread, without Python's lock, and shares nothing but weights with
other calls: one thread per core, each with its own chunks, is how it uses several cores. The kernels read the network's
own tensors; only the convolution and, of the last layer, what reads one query are laid out again.

A row's sums are the same bits whatever rows stand beside it, in every precision: no option is needed for that.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional as F

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import layout as laid
from prefrank.model.integer_weights import table_in_float
from prefrank.model.linear import Activation
from prefrank.model.pack import check_batch
from prefrank.model.packed_encoder import ACTIVATIONS
from prefrank.types import Batch

_ACTIVATIONS: dict[Activation, int] = {
    F.gelu: 0,
    ACTIVATIONS["gelu_new"]: 1,
    F.relu: 2,
    F.silu: 3,
    torch.tanh: 4,
    ACTIVATIONS["linear"]: 5,
    ACTIVATIONS["quick_gelu"]: 6,
    torch.sigmoid: 7,
}
_PRECISIONS = {torch.float32: 0, torch.int16: 1, torch.int8: 2}


def unfit(layout: laid.Layout) -> str | None:
    """Why the kernels cannot run this model, or None where they can."""
    weight = layout.embeddings.words
    convolution = layout.convolution
    activations = [layout.activation, layout.head.activation, *([convolution.activation] if convolution else [])]
    if weight.device.type != "cpu":
        return f"its weights are on {weight.device}"
    if weight.dtype != torch.float32:
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    if any(activation not in _ACTIVATIONS for activation in activations):
        return "it has an activation they do not know"
    if convolution and convolution.groups > 1:
        return "its convolution has groups"
    if convolution and len(layout.layers) == 1:
        return "its convolution stands on its only layer"
    return None


def check_shapes(layout: laid.Layout) -> None:
    """See that every buffer has the size and type that the kernels, which look at neither, will read.

    Raises:
        BadInput: one that has not; a loaded folder cannot, as its weights are checked against its config.json.
    """
    width, heads, embeddings, float32 = layout.width, layout.num_heads, layout.embeddings, torch.float32
    words = embeddings.words
    narrow = words.shape[-1]

    def wants(what: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype = float32) -> None:
        if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype):
            given = f"{list(tensor.shape)} of {tensor.dtype}"
            raise BadInput(f"the kernels cannot run this model: {what} is {given}; wanted {list(shape)} of {dtype}")

    def linear(what: str, layer: laid.Linear | None, outputs: int, inputs: int, *, wide: bool = False) -> None:
        if layer is None:
            return
        dtype = float32 if wide or layer.scale is None else layer.weight.dtype
        wants(what, layer.weight, (outputs, inputs), dtype)
        wants(f"the bias of {what}", layer.bias, (outputs,))
        wants(f"the scales of {what}", layer.scale, (outputs,))
        if layer.weight.dtype not in _PRECISIONS or (layer.scale is None) != (layer.weight.dtype == float32):
            raise BadInput(f"the kernels cannot run this model: {what} is of {layer.weight.dtype}")

    def norm(what: str, part: laid.Norm, size: int) -> None:
        wants(what, part.weight, (size,))
        wants(what, part.bias, (size,))

    wants("the table of words", words, (layout.vocab_size, narrow))
    first = embeddings.first_position
    if embeddings.positions is not None:
        wants("the table of positions", embeddings.positions, (first + (layout.max_positions or 0), narrow))
    if embeddings.types is not None:
        wants("the table of types", embeddings.types, (max(len(embeddings.types), 1 + embeddings.typed), narrow))
    linear("the projection of embeddings", embeddings.projection, width, narrow)
    norm("the norm of embeddings", embeddings.norm, width if embeddings.projected_first else narrow)
    rows = 0 if layout.distances is None else 2 * layout.distances.span
    inner = len(layout.layers[0].up.weight)
    for number, layer in enumerate(layout.layers):
        for name, part in layer.attention_linears.items():
            linear(f"{name} of layer {number}", part, width, width)
        linear(f"up of layer {number}", layer.up, inner, width)
        linear(f"down of layer {number}", layer.down, width, inner)
        norm(f"a norm of layer {number}", layer.attention_norm, width)
        norm(f"a norm of layer {number}", layer.output_norm, width)
        for table, scale in (
            (layer.position_keys, layer.position_keys_scale),
            (layer.position_queries, layer.position_queries_scale),
        ):
            wants(f"positions of layer {number}", table, (rows, width), float32 if scale is None else torch.int16)
            wants(f"positions of layer {number}", scale, (rows, heads))
    if (convolution := layout.convolution) is not None:
        wants("the convolution", convolution.weight, (width, width, convolution.weight.shape[-1]))
        wants("the convolution", convolution.bias, (width,))
        norm("the convolution's norm", convolution.norm, width)
    linear("the head", layout.head.dense, width, width, wide=True)
    linear("the output", layout.head.output, 1, width, wide=True)
    if not width or width % heads or (embeddings.projection is None and narrow != width) or first < 0:
        raise BadInput(f"the kernels cannot run this model: a width of {width} and {heads} heads do not fit")


class NativeEngine:
    """Scores packed batches: `engine(batch)` gives [N] float32 scores in the batch's order.

    Args:
        layout: a model for which `unfit` is None; its tensors must not change while the engine lives.
        kernels: one of `prefrank.native.available()`; by default the first.
        streams: threads that will call it at once.

    Raises:
        BadInput: the kernels are not there, or cannot run this model.
    """

    def __init__(self, layout: laid.Layout, kernels: str | None = None, *, streams: int = 1) -> None:
        if reason := unfit(layout):
            raise BadInput(f"the native kernels cannot run this model: {reason}; use the kernels 'torch'")
        check_shapes(layout)
        self.kernels = native.choose(kernels)
        self.layout = layout
        self.streams = streams
        self._library = native.load(self.kernels)
        self._kept: list[Any] = []
        self._model = self._fill(layout)
        weight = layout.layers[0].query.weight
        self.precision = str(weight.dtype).removeprefix("torch.")
        self._row_of: Int32[np.ndarray, " R"] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made from the layout: pointers mean nothing in another process."""
        return partial(NativeEngine, streams=self.streams), (self.layout, self.kernels)

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        lengths = np.diff(batch.starts)
        check_batch(batch, vocab_size=self.layout.vocab_size, max_positions=self.layout.max_positions)
        positions = np.arange(len(batch.ids)) - np.repeat(batch.starts[:-1], lengths)
        types = batch.types.astype(np.int64)
        ids, starts = np.ascontiguousarray(batch.ids), np.ascontiguousarray(batch.starts)
        row_of = self._rows_by_distance(int(lengths.max()))
        scores = np.empty(len(lengths), np.float32)
        failed = self._library.prefrank_score(
            self._model,
            *(array.ctypes.data for array in (ids, positions, types, starts)),
            len(lengths),
            None if row_of is None else row_of.ctypes.data,
            0 if row_of is None else len(row_of) // 2,
            scores.ctypes.data,
        )
        if failed:
            raise MemoryError(f"a batch of {len(ids):,} tokens does not fit into memory; set a smaller max_tokens")
        return torch.from_numpy(scores)

    def multiply(self, linear: laid.Linear, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        """x W^T + b through the kernels alone, as they do it inside a layer."""
        outputs = len(linear.weight)
        out = torch.empty(len(x), -(-outputs // 16) * 16)
        self._library.prefrank_multiply(
            self._linear(linear), x.data_ptr(), x.stride(0), len(x), out.data_ptr(), out.stride(0)
        )
        return out[:, :outputs]

    def _rows_by_distance(self, longest: int) -> Int32[np.ndarray, " R"] | None:
        """Made again only for a longer row; another thread's table is as good."""
        if self.layout.distances is None:
            return None
        table = self._row_of
        if table is None or len(table) // 2 < longest:
            table = self.layout.distances.rows(longest).to(torch.int32).numpy()
            self._row_of = table
        return table

    def _fill(self, layout: laid.Layout) -> native.Model:
        embeddings, last = layout.embeddings, layout.layers[-1]
        layers = (native.Layer * len(layout.layers))(*(self._layer(layer) for layer in layout.layers))
        key, value = _in_float(last.key), _in_float(last.value)
        zeros = torch.zeros(layout.width)
        keys = _table_in_float(last.position_keys, last.position_keys_scale)
        queries = _table_in_float(last.position_queries, last.position_queries_scale)
        table = keys if keys is not None else queries
        model = native.Model(
            width=layout.width,
            heads=layout.num_heads,
            inner=len(layout.layers[0].up.weight),
            layers=len(layout.layers),
            activation=_ACTIVATIONS[layout.activation],
            head_activation=_ACTIVATIONS[layout.head.activation],
            positionless=layout.positionless,
            integers=layout.layers[0].query.scale is not None,
            scale=layout.scale,
            embeddings=native.Embeddings(
                words=self._pointer(embeddings.words),
                positions=self._pointer(embeddings.positions),
                types=self._pointer(embeddings.types),
                projection=self._linear(embeddings.projection),
                norm=self._norm(embeddings.norm),
                width=embeddings.words.shape[1],
                first_position=embeddings.first_position,
                typed=embeddings.typed,
                projected_first=embeddings.projected_first,
            ),
            layer=layers,
            dense=self._linear(layout.head.dense),
            output=self._linear(layout.head.output),
            last_key=self._pointer(key),
            last_key_bias=self._pointer(zeros if last.key.bias is None else last.key.bias),
            last_value=self._pointer(value),
            last_value_bias=self._pointer(zeros if last.value.bias is None else last.value.bias),
            last_position_keys=self._pointer(keys),
            last_position_queries=self._pointer(queries),
            last_positions=self._pointer(_fold_positions(key, queries, layout.num_heads)),
            relative_rows=0 if table is None else len(table),
        )
        if layout.convolution is not None:
            kernel = layout.convolution.weight.shape[2]
            flat = layout.convolution.weight.permute(0, 2, 1).reshape(layout.width, -1).contiguous()
            model.convolution = self._linear(laid.Linear(flat, layout.convolution.bias))
            model.convolution_norm = self._norm(layout.convolution.norm)
            model.conv_activation, model.conv_kernel = _ACTIVATIONS[layout.convolution.activation], kernel
        return model

    def _layer(self, layer: laid.Layer) -> native.Layer:
        return native.Layer(
            query=self._linear(layer.query),
            key=self._linear(layer.key),
            value=self._linear(layer.value),
            attention_output=self._linear(layer.attention_output),
            up=self._linear(layer.up),
            down=self._linear(layer.down),
            attention_norm=self._norm(layer.attention_norm),
            output_norm=self._norm(layer.output_norm),
            position_keys=self._relative(layer.position_keys, layer.position_keys_scale),
            position_queries=self._relative(layer.position_queries, layer.position_queries_scale),
        )

    def _linear(self, linear: laid.Linear | None) -> native.Linear:
        if linear is None:
            return native.Linear()
        weight, precision = linear.weight, _PRECISIONS[linear.weight.dtype]
        if precision and weight.shape[1] % 4:
            raise BadInput(f"a layer of {weight.shape[1]} inputs cannot be quantized; wanted a multiple of 4")
        sums, longest = None, 0.0  # without wide copies of whole matrices, which would leave holes in memory
        if weight.dtype == torch.int8:
            sums = torch.from_numpy(128 * weight.numpy().sum(1, dtype=np.int32))
        if weight.dtype == torch.int16:
            longest = max(float(block.double().norm(dim=1).max()) for block in weight.split(128))
        return native.Linear(
            weight=self._pointer(weight),
            bias=self._pointer(linear.bias),
            scale=self._pointer(linear.scale),
            offset=self._pointer(sums),
            longest=longest,
            outputs=weight.shape[0],
            inputs=weight.shape[1],
            precision=precision,
        )

    def _relative(self, table: Tensor | None, scale: Float[Tensor, "S H"] | None) -> native.Relative:
        if table is None:
            return native.Relative()
        if scale is None:
            return native.Relative(words=self._pointer(table))
        heads = table.view(*scale.shape, -1)
        rows = F.pad(heads, (0, 1)) if heads.shape[-1] % 2 else heads  # in whole words
        return native.Relative(words=self._pointer(rows), scale=self._pointer(scale))

    def _norm(self, norm: laid.Norm) -> native.Norm:
        return native.Norm(weight=self._pointer(norm.weight), bias=self._pointer(norm.bias), eps=norm.eps)

    def _pointer(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _in_float(linear: laid.Linear) -> Float[Tensor, "O I"]:
    return linear.weight if linear.scale is None else linear.weight.float() * linear.scale[:, None]


def _table_in_float(table: Tensor | None, scale: Float[Tensor, "S H"] | None) -> Float[Tensor, "S D"] | None:
    return table if table is None or scale is None else table_in_float(table, scale)


def _fold_positions(
    key: Float[Tensor, "D D"], queries: Float[Tensor, "S D"] | None, num_heads: int
) -> Float[Tensor, "H S D"] | None:
    """W_k^T PQ for each head and relative row: with it x.(W_k^T PQ) is k.PQ, and the last layer needs no keys."""
    if queries is None:
        return None
    by_head = queries.view(len(queries), num_heads, -1).transpose(0, 1)
    return by_head @ key.view(num_heads, -1, key.shape[1])
