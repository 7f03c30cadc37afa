"""Whether the tensors of a folder are those of a network: what older and other programs call them, and their shapes."""

import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prefrank.errors import BadModel
from prefrank.model.foreign import foreign, shown_names
from prefrank.model.network import PackedDecoder, PackedNetwork
from prefrank.model.weights import FLOATS

_LEFT_OUT = re.compile(
    r"(?:^|\.)(?:position_ids|token_type_ids|inv_freq|masked_bias)$"
    r"|(?:^|\.)pooler\.dense\.|embeddings\.position_embeddings\.weight$"
    r"|^(?:cls|lm_head|(?:lm|mask|discriminator|generator)_predictions|generator_lm_head)\."
)
"""Names that a checkpoint may have and a reward model may not need: buffers, pre-training heads, unused tables."""


def renaming(network: PackedNetwork, *, new_head: bool = False) -> Callable[[str], str | None]:
    """A function from a stored name to the network's; None for what a reward model may leave out.

    Args:
        new_head: a decoder's own head may be left out too, whatever it is.
    """
    expected = network.state_dict()
    bare = new_head and isinstance(network, PackedDecoder)

    def rename(stored: str) -> str | None:
        name = _modern_name(stored, expected, network.backbone)
        left_out = _LEFT_OUT.search(stored) or (bare and not stored.startswith(f"{network.backbone}."))
        return name if name in expected or not left_out else None

    return rename


def _modern_name(stored: str, expected: Mapping[str, Tensor], prefix: str) -> str:
    name = stored.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"{prefix}.{name}" if f"{prefix}.{name}" in expected and name not in expected else name


def check_fit(
    folder: Path,
    network: PackedNetwork,
    tensors: Mapping[str, Tensor],
    *,
    exactly: bool = False,
    narrow: Container[str] = (),
) -> None:
    """Raise BadModel for names, shapes or types that are not the network's; `exactly`, for float types too, but for
    those of `narrow`.
    """
    expected = network.state_dict()
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing and not unexpected:
        raise BadModel(f"the weights in {folder} lack {shown_names(missing)}; copy or download them again")
    if unexpected:
        names = shown_names(unexpected) + (f", and they lack {shown_names(missing)}" if missing else "")
        raise BadModel(
            f"the weights in {folder} do not fit its config.json: it knows no {names}{foreign(folder, network.config)}"
        )
    for name, tensor in sorted(tensors.items()):
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)[:8]}, its config.json asks for {list(expected[name].shape)}"
            raise BadModel(f"in {folder} the tensor {name} is {shapes}; do the files belong together?")
        wanted = expected[name].dtype
        exact = exactly and name not in narrow
        if tensor.dtype != wanted and (exact or tensor.dtype not in FLOATS or not wanted.is_floating_point):
            raise BadModel(
                f"in {folder} the tensor {name} is of {_dtype_name(tensor.dtype)}; wanted {_dtype_name(wanted)}"
            )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def drop_rows(embedding: nn.Embedding, folder: Path, count: int) -> None:
    """Take off the last rows of a table of embeddings, which were added for a padding token when it was saved.

    Raises:
        BadModel: the folder's table is not longer than that.
    """
    rows = embedding.num_embeddings
    if count >= rows:
        raise BadModel(f"{folder / 'prefrank.json'} counts {count} padding_rows, but the model has {rows} embeddings")
    embedding.weight = nn.Parameter(embedding.weight.detach()[:-count])
    embedding.num_embeddings -= count
