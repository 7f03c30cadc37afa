"""What the native engines of encoders and decoders share: how a layout's parts become the kernels' structures.

Structures hold plain pointers. `kept` is the list of what they point to, which must live as long as they do.
"""

import ctypes
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import layout as laid
from prefrank.model.packed_encoder import ACTIVATIONS, Activation

ACTIVATION_NUMBERS: dict[Activation, int] = {
    F.gelu: 0,
    ACTIVATIONS["gelu_new"]: 1,
    F.relu: 2,
    F.silu: 3,
    torch.tanh: 4,
    ACTIVATIONS["linear"]: 5,
    ACTIVATIONS["quick_gelu"]: 6,
    torch.sigmoid: 7,
}
PRECISIONS = {torch.float32: 0, torch.int16: 1, torch.int8: 2, torch.bfloat16: 3, torch.float16: 4}
INTEGERS = (torch.int16, torch.int8)


def pointer(tensor: Tensor | None, kept: list[Any]) -> int | None:
    """Where a tensor's numbers lie, one after the other."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    kept.append(tensor)
    return tensor.data_ptr()


def fill_linear(linear: laid.Linear | None, kept: list[Any]) -> native.Linear:
    """A linear layer as the kernels read it; narrow weights as they lie, a narrow bias widened.

    Raises:
        BadInput: integer weights whose inputs do not fill the kernels' words.
    """
    if linear is None:
        return native.Linear()
    weight = linear.weight
    if weight.dtype in INTEGERS and weight.shape[1] % 4:
        raise BadInput(f"a layer of {weight.shape[1]} inputs cannot be quantized; wanted a multiple of 4")
    sums, longest = None, 0.0  # without wide copies of whole matrices, which would leave holes in memory
    if weight.dtype == torch.int8:
        sums = torch.from_numpy(128 * weight.numpy().sum(1, dtype=np.int32))
    if weight.dtype == torch.int16:
        longest = max(float(block.double().norm(dim=1).max()) for block in weight.split(128))
    return native.Linear(
        weight=pointer(weight, kept),
        bias=pointer(None if linear.bias is None else linear.bias.float(), kept),
        scale=pointer(linear.scale, kept),
        offset=pointer(sums, kept),
        longest=longest,
        outputs=weight.shape[0],
        inputs=weight.shape[1],
        precision=PRECISIONS[weight.dtype],
    )


def multiply(library: ctypes.CDLL, linear: laid.Linear, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
    """x W^T + b through the kernels alone, as they do it inside a layer."""
    outputs = len(linear.weight)
    out = torch.empty(len(x), -(-outputs // 16) * 16)
    kept: list[Any] = []
    filled = fill_linear(linear, kept)
    library.prefrank_multiply(filled, x.data_ptr(), x.stride(0), len(x), out.data_ptr(), out.stride(0))
    return out[:, :outputs]


def wants(what: str, tensor: Tensor | None, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """See that a tensor, where there is one, has this shape and one of these types (float32 where none is named).

    Raises:
        BadInput: it has not.
    """
    dtypes = dtypes or (torch.float32,)
    if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype not in dtypes):
        given = f"{list(tensor.shape)} of {tensor.dtype}"
        wanted = f"{list(shape)} of {' or '.join(map(str, dtypes))}"
        raise BadInput(f"the kernels cannot run this model: {what} is {given}; wanted {wanted}")
