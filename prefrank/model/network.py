"""`Network`, what every model is to the rest of prefrank: a callable from a packed batch to float32 scores.

`Network` is a Protocol: the native encoders and the wrapper around other transformers models share no base class.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.model.integer_weights import stored_precision
from prefrank.model.weights import bytes_in, widest
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


@runtime_checkable
class Decoder(Network, Protocol):
    """A network that may be scored at one token of each row: `decoder` says whether it is.

    `scored_padding` is the token that is passed over to find it: the rightmost that is another; None for the last one.
    """

    decoder: bool

    @property
    def scored_padding(self) -> int | None: ...

    def score_last_token(self) -> None:
        """Read scores at each row's last token, whatever that is; no token stands for padding then."""
        ...

    def pass_over_padding(self) -> None:
        """Read scores at the rightmost token that is not config.json's padding, as transformers does."""
        ...

    def drop_rows(self, folder: Path, count: int) -> None:
        """Take off the last rows of the table of embeddings, which were added for a padding token when it was saved.

        Raises:
            BadModel: the folder's table is not longer than that.
        """
        ...


@runtime_checkable
class PackedDecoder(PackedNetwork, Decoder, Protocol):
    """A decoder of one of our families. With `wide`, weights may be bfloat16 or float16 and all is computed in float32,
    to the same bits as with weights in float32.
    """

    wide: bool


def as_decoder(network: Network) -> Decoder | None:
    """The network where it is a decoder, scored at one token of each row; else None."""
    return network if isinstance(network, Decoder) and network.decoder else None


def is_wide(network: Network) -> bool:
    """Whether its narrow weights stand for the same numbers in float32."""
    return isinstance(network, PackedDecoder) and network.wide


def precision_of(network: Network) -> str:
    """What a network computes in, by name: that of its integers, else the type of what is below the head."""
    dtype = torch.float32 if is_wide(network) else next(iter(network.parameters())).dtype
    return stored_precision(network.config) or str(dtype).removeprefix("torch.")


def trained_positions(network: Network) -> int | None:
    """Tokens of the longest row that a network was trained for, to which texts are cut unless more is asked for."""
    if network.max_positions is None and network.causal is not None:
        return network.causal.fixed_until  # rope's `dynamic` takes any length
    return network.max_positions


def outer_name(network: Network) -> str:
    """What stands before transformers' own names in a network's: nothing in ours."""
    return "" if isinstance(network, PackedNetwork) else "model."


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


_FIRST_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2")
"""Models of all others ran through transformers once, and have had fingerprints since."""


@runtime_checkable
class Digest(Protocol):
    """One of hashlib's digests, whose class has no public name."""

    def update(self, data: Any, /) -> None: ...

    def copy(self) -> Any: ...

    def hexdigest(self) -> str: ...


def fingerprint(network: Network, *, extra: bytes) -> str:
    """sha256 over the sorted (name, dtype, shape, bytes) of the weights, then `extra`; hexadecimal.

    Names have `model.` before transformers' own but in `_FIRST_FAMILIES`, whichever network runs the model. Narrow
    weights that stand for float32 (`is_wide`) count as such.

    Args:
        extra: what else decides a score: tokenizer and text settings.
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
    digest, wide = hashlib.sha256(), is_wide(network)
    ours = isinstance(network, PackedNetwork) and network.config["model_type"] not in _FIRST_FAMILIES
    prefix = "model." if ours else ""
    tensors = [(f"{prefix}{name}", tensor) for name, tensor in sorted(network.state_dict().items())]
    cut = [(f"{prefix}{name}", tensor) for name, tensor in sorted((uncut or {}).items())]
    start = len(tensors) - len(cut)
    _add(digest, tensors[:start], wide=wide)
    whole = digest.copy()
    _add(digest, tensors[start:], wide=wide)
    _add(whole, cut, wide=wide)
    return digest, whole if [name for name, _ in tensors[start:]] == [name for name, _ in cut] else None


def _add(digest: Digest, tensors: Sequence[tuple[str, Tensor]], *, wide: bool) -> None:
    for name, tensor in tensors:
        dtype = widest(tensor.dtype) if wide else tensor.dtype
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        for part in bytes_in(dtype, tensor):
            digest.update(part)


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
    layers = [layer_of(name) for name in names]
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


def layer_of(name: str) -> int | None:
    """The number of the layer that a parameter is inside; None of embeddings, head, and what all layers share."""
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
