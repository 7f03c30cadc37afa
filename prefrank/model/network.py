"""`Network`, what every model is to the rest of prefrank: a callable from a packed batch to float32 scores.

`Network` is a Protocol: the native encoders and the wrapper around other transformers models share no base class.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.model.weights import as_bytes
from prefrank.types import Batch, Causal


@runtime_checkable
class Network(Protocol):
    """A reward model as an `nn.Module`: `network(batch)` gives float32 scores, in the batch's order, with gradient.

    They are [N] with one head and [N, H] with several. `heads` names them, and `output_layer` is the linear layer that
    gives them; `uncut` is what that layer held before it was cut to some of its heads, by name, {} where it was not.
    `config` is the raw config.json; `max_positions` the longest row it takes, None for no limit; `vocab_size` one more
    than the largest token id. With `gradient_checkpointing` set to True, training keeps no activations inside layers
    and computes them twice. With `fused`, attention is one kernel call, where `obstacle` is None. `causal` says which
    tokens the rows of a batch may have in common; None where every row stands for itself.
    """

    config: dict[str, Any]
    heads: tuple[str, ...]
    output_layer: str
    uncut: dict[str, Tensor]
    max_positions: int | None
    vocab_size: int
    gradient_checkpointing: bool
    fused: bool
    causal: Causal | None
    training: bool

    def __call__(self, batch: Batch) -> Tensor: ...

    def obstacle(self) -> str | None:
        """Why `fused` cannot be set here, as the end of a sentence; None where it can."""
        ...

    def sharing(self, ids: Int64[np.ndarray, " T"]) -> AbstractContextManager[None]:
        """Inside the block, what the micro-batches of a step have in common is computed once. `ids` are the step's."""
        ...

    def train(self, mode: bool = True) -> Any: ...

    def get_submodule(self, target: str) -> nn.Module: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def state_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class PackedNetwork(Network, Protocol):
    """A network of one of our families (`families/`). `backbone` is the name of the module below the head."""

    backbone: str

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any: ...

    def eval(self) -> Any: ...


def score_batches(network: Network, batches: Sequence[Batch]) -> Float[Tensor, "N *H"]:
    """Scores of all rows, in the order `Batch.rows` gives, on the CPU: evaluation mode, no gradient.

    They are [N], or [N, H] with several heads. The network's training flag is as before afterwards. A score that is
    not a number is returned as it is.
    """
    heads = [len(network.heads)] if len(network.heads) > 1 else []
    scores = torch.empty(sum(len(batch.rows) for batch in batches), *heads)
    training = network.training
    network.train(False)
    try:
        for batch in batches:
            with torch.inference_mode():
                values = network(batch).cpu()
            # Copied outside inference mode: inference tensors could not take part in a later backward pass.
            scores[torch.tensor(batch.rows)] = values
    finally:
        network.train(training)
    return scores


@runtime_checkable
class Digest(Protocol):
    """One of hashlib's digests, whose class has no public name."""

    def update(self, data: Any, /) -> None: ...

    def copy(self) -> Any: ...

    def hexdigest(self) -> str: ...


def fingerprint(network: Network, *, extra: bytes) -> str:
    """sha256 over the sorted (name, dtype, shape, bytes) of the weights, then `extra`; hexadecimal.

    `extra` is what else decides a score: tokenizer and text settings.
    """
    return with_text(weights_digest(network)[0], extra)


def with_text(digest: Digest, extra: bytes) -> str:
    """The fingerprint of weights that were read already."""
    digest = digest.copy()
    digest.update(extra)
    return digest.hexdigest()


def weights_digest(network: Network, uncut: Mapping[str, Tensor] | None = None) -> tuple[Digest, Digest | None]:
    """What `fingerprint` makes of the weights alone, and of the network before it was cut to some of its heads.

    Reads every weight once, copying none, at the speed of sha256: 1.8 GB a second on a core with its instructions.

    Args:
        uncut: what the output layer held then (`heads.keep_heads`), {} for a network that was not cut.

    Returns:
        The second is None where weights come after the output layer, which would have to be read again for it.
    """
    digest = hashlib.sha256()
    tensors, uncut = sorted(network.state_dict().items()), uncut or {}
    start = len(tensors) - len(uncut)
    _add(digest, tensors[:start])
    whole = digest.copy()
    _add(digest, tensors[start:])
    _add(whole, sorted(uncut.items()))
    return digest, whole if {name for name, _ in tensors[start:]} == uncut.keys() else None


def _add(digest: Digest, tensors: Sequence[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(as_bytes(tensor))


_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_HEAD = re.compile(
    r"^(?:model\.)?(?:\w+\.)?(?:pooler|classifier|pre_classifier|head|score|sequence_summary|logits_proj)\."
)


def parameters_by_depth(network: Network) -> list[list[str]]:
    """Names of the parameters from the input up: embeddings, layer 0, layer 1 ..., head.

    Freezing the bottom n layers and layer-wise learning rates read this. What all layers share from the start
    (relative positions, the projection of embeddings) counts as embeddings, a norm after the last layer as that
    layer, and a pooler as head.
    """
    names = [name for name, _ in network.named_parameters()]
    layers = [_layer_of(name) for name in names]
    count = 1 + max((layer for layer in layers if layer is not None), default=-1)
    depths: list[list[str]] = [[] for _ in range(count + 2)]
    top = False
    for name, layer in zip(names, layers, strict=True):
        top = top or layer is not None
        depths[_depth(name, layer, top, count)].append(name)
    return depths


def head_parameter_names(network: Network) -> list[str]:
    """Names of the parameters above the backbone: pooler and classifier, or a decoder's score layer."""
    return parameters_by_depth(network)[-1]


def head_modules(network: Network) -> list[str]:
    """Names of the modules that hold the head's parameters: pooler and classifier, or a decoder's score layer."""
    return list(dict.fromkeys(match.group()[:-1] for match in map(_HEAD.match, head_parameter_names(network)) if match))


def _layer_of(name: str) -> int | None:
    if ".encoder.conv." in name:
        return 0  # DeBERTa-v2's convolution belongs to layer 0
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


def _depth(name: str, layer: int | None, top: bool, count: int) -> int:
    if layer is not None:
        return layer + 1
    if _HEAD.search(name):
        return count + 1
    shared = "embed" in name or name.endswith(
        (".encoder.LayerNorm.weight", ".encoder.LayerNorm.bias", ".encoder.relative_attention_bias.weight")
    )
    return count if top and not shared else 0
