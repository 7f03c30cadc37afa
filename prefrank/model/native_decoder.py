"""The native engine of decoders: a laid-out decoder scored by the C++ kernels of `prefrank.native`.

One call scores one batch on the calling thread, without Python's lock; one thread per core is how it uses several.
Every distinct token of a batch is computed once, and rows that end at the same token are scored once. The kernels read
the network's own tensors; narrow float weights (bfloat16, float16) stay as they are and are widened as they are read,
so the score is that of the same weights in float32, to the bit.

A row's sums are the same bits whatever rows it shares tokens with, in every precision.
"""

import ctypes
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import layout as laid
from prefrank.model.native_parts import ACTIVATION_NUMBERS, INTEGERS, PRECISIONS, fill_linear, multiply, pointer, wants
from prefrank.model.pack import check_batch
from prefrank.model.segments import segments_of
from prefrank.types import Batch

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_LARGEST = 2**31 - 1


def unfit(layout: laid.DecoderLayout) -> str | None:
    """Why the kernels cannot run this decoder, or None where they can."""
    if layout.words.device.type != "cpu":
        return f"its weights are on {layout.words.device}"
    if layout.words.dtype not in _FLOATS:
        return f"its weights are {str(layout.words.dtype).removeprefix('torch.')}"
    if layout.activation not in ACTIVATION_NUMBERS:
        return "it has an activation they do not know"
    return None


def check_shapes(layout: laid.DecoderLayout) -> None:
    """See that every buffer has the size and type that the kernels, which look at neither, will read.

    Raises:
        BadInput: one that has not; a loaded folder cannot, as its weights are checked against its config.json.
    """
    heads, kv_heads, head_width = layout.num_heads, layout.num_kv_heads, layout.head_width
    pairs = len(layout.rope.frequencies)
    if min(heads, kv_heads, head_width) < 1 or heads % kv_heads or heads * head_width > _LARGEST:
        raise _unlike(f"{heads} heads of {head_width} with {kv_heads} of keys do not fit")
    if not layout.layers or layout.words.ndim != 2 or not 0 < layout.words.shape[1] <= _LARGEST:
        raise _unlike(f"{len(layout.layers)} layers and words of {list(layout.words.shape)} do not fit")
    if not 0 < 2 * pairs <= head_width:
        raise _unlike(f"a rotation of {pairs} pairs of channels does not fit heads of {head_width}")
    width = layout.words.shape[1]
    wants("the table of words", layout.words, (layout.vocab_size, width), *_FLOATS)
    wants("the last norm", layout.norm, (width,), *_FLOATS)
    _check_linear("the head", layout.output, 1, width, wide=True)
    for number, layer in enumerate(layout.layers):
        of_layer = f"of layer {number}"
        inner = layer.up.weight.shape[0] if layer.up.weight.ndim else 0
        shapes = {
            "query": (heads * head_width, width),
            "key": (kv_heads * head_width, width),
            "value": (kv_heads * head_width, width),
            "output": (width, heads * head_width),
            "gate": (inner, width),
            "up": (inner, width),
            "down": (width, inner),
        }
        for name, shape in shapes.items():
            _check_linear(f"{name} {of_layer}", getattr(layer, name), *shape)
        for name in ("attention_norm", "feed_forward_norm"):
            wants(f"{name} {of_layer}", getattr(layer, name), (width,), *_FLOATS)
        for name in ("query_norm", "key_norm"):
            wants(f"{name} {of_layer}", getattr(layer, name), (head_width,), *_FLOATS)
        if layer.window is not None and layer.window < 1:
            raise _unlike(f"a window of {layer.window} tokens {of_layer}; wanted at least 1, or None")
        _check_together(of_layer, layer.query, layer.key, layer.value)
        _check_together(of_layer, layer.gate, layer.up)


def _check_linear(what: str, layer: laid.Linear, outputs: int, inputs: int, *, wide: bool = False) -> None:
    wants(what, layer.weight, (outputs, inputs), *((torch.float32,) if wide else (*_FLOATS, *INTEGERS)))
    wants(f"the bias of {what}", layer.bias, (outputs,), *_FLOATS)
    wants(f"the scales of {what}", layer.scale, (outputs,))
    if (layer.scale is not None) != (layer.weight.dtype in INTEGERS) or not outputs or not inputs:
        raise _unlike(f"{what} is {list(layer.weight.shape)} of {layer.weight.dtype}")
    if any(part is not None and part.device.type != "cpu" for part in (layer.weight, layer.bias, layer.scale)):
        raise _unlike(f"{what} is on another device than the CPU")


def _check_together(of_layer: str, *layers: laid.Linear) -> None:
    """Layers that read the same integers must be of the same kind."""
    kinds = {layer.weight.dtype if layer.scale is not None else torch.float32 for layer in layers}
    if len(kinds) > 1:
        raise _unlike(f"weights {of_layer} that read the same activations are of {len(kinds)} kinds")


def _unlike(what: str) -> BadInput:
    return BadInput(f"the kernels cannot run this model: {what}")


class NativeDecoderEngine:
    """Scores packed batches, trees or not: `engine(batch)` gives [N] float32 scores in the batch's order.

    Args:
        layout: a decoder for which `unfit` is None; its tensors must not change while the engine lives.
        kernels: one of `prefrank.native.available()`; by default the first.
        streams: threads that will call it at once.

    Raises:
        BadInput: the kernels are not there, or cannot run this model.
    """

    def __init__(self, layout: laid.DecoderLayout, kernels: str | None = None, *, streams: int = 1) -> None:
        if reason := unfit(layout):
            raise BadInput(f"the native kernels cannot run this model: {reason}; use the kernels 'torch'")
        check_shapes(layout)
        self.kernels = native.choose(kernels)
        self.layout = layout
        self.streams = streams
        self._library = native.load(self.kernels)
        self._kept: list[Any] = []
        self._model = self._fill(layout)
        first = layout.layers[0].query
        self.precision = "float32" if first.scale is None else str(first.weight.dtype).removeprefix("torch.")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made from the layout: pointers mean nothing in another process."""
        return partial(NativeDecoderEngine, streams=self.streams), (self.layout, self.kernels)

    def __call__(self, batch: Batch) -> Float[Tensor, " N"]:
        layout = self.layout
        check_batch(batch, vocab_size=layout.vocab_size, max_positions=layout.max_positions)
        segments = segments_of(batch, layout.causal)
        lengths = np.repeat(segments.lengths, np.diff(segments.starts))
        cosines, sines = (_floats(table) for table in layout.rope.angles(segments.positions, lengths))
        if not cosines.shape == sines.shape == (len(segments.ids), len(layout.rope.frequencies)):
            raise _unlike(f"its rope gives angles of {list(cosines.shape)} for {len(segments.ids)} tokens")
        ends, places = np.unique(segments.ends, return_inverse=True)
        leaves = np.searchsorted(segments.starts, ends, side="right") - 1
        integers = [segments.ids, segments.starts, segments.parents, segments.bases, leaves]
        arrays = [np.ascontiguousarray(array, np.int64) for array in integers]
        scores = np.empty(len(ends), np.float32)
        trees = native.Trees(
            *(array.ctypes.data for array in arrays),
            cosines.data_ptr(),
            sines.data_ptr(),
            len(segments.parents),
            len(ends),
        )
        if self._library.prefrank_score_decoder(self._model, trees, scores.ctypes.data):
            raise MemoryError(
                f"a batch of {len(segments.ids):,} tokens does not fit into memory; set a smaller max_tokens"
            )
        return torch.from_numpy(scores[places])

    def multiply(self, linear: laid.Linear, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        """x W^T + b through the kernels alone, as they do it inside a layer."""
        return multiply(self._library, linear, x)

    def _fill(self, layout: laid.DecoderLayout) -> native.Decoder:
        layers = (native.DecoderLayer * len(layout.layers))(*map(self._layer, layout.layers))
        self._kept.append(layers)
        return native.Decoder(
            layer=ctypes.cast(layers, ctypes.POINTER(native.DecoderLayer)),
            words=pointer(layout.words, self._kept),
            norm=self._floats(layout.norm),
            head=fill_linear(layout.output, self._kept),
            width=layout.words.shape[1],
            heads=layout.num_heads,
            kv_heads=layout.num_kv_heads,
            head_width=layout.head_width,
            layers=len(layout.layers),
            activation=ACTIVATION_NUMBERS[layout.activation],
            words_precision=PRECISIONS[layout.words.dtype],
            rotated=len(layout.rope.frequencies),
            scale=layout.scale,
            eps=layout.norm_eps,
        )

    def _layer(self, layer: laid.DecoderLayer) -> native.DecoderLayer:
        linears = ("query", "key", "value", "output", "gate", "up", "down")
        norms = ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")
        return native.DecoderLayer(
            **{name: fill_linear(getattr(layer, name), self._kept) for name in linears},
            **{name: self._floats(getattr(layer, name)) for name in norms},
            window=layer.window or 0,
        )

    def _floats(self, tensor: Tensor | None) -> int | None:
        return pointer(None if tensor is None else _floats(tensor), self._kept)


def _floats(tensor: Tensor) -> Float[Tensor, "..."]:
    return tensor.detach().float().contiguous()
