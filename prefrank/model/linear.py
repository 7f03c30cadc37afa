"""Linear layers by the faster library on a CPU, and what is computed otherwise where a result is only read.

With neither gradient nor dropout, an activation is part of the product before it, and what treats every token alone
runs in blocks of tokens. Families call the same blocks in training and in scoring; which way they go is decided here.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]

# F.linear in float32 is MKL's, on Zen 4 a tenth slower than oneDNN's, but faster on Zen 3, which has no AVX-512.
# The operator is the one torch.compile calls; the public way to oneDNN copies the input.
ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
# Of 4,096 tokens the 4 D wide activations leave the cache: on Zen 5 blocks take a tenth off a feed-forward block.
BLOCK_ROWS = 512


def tanh_gelu(x: Tensor) -> Tensor:
    """gelu with its tanh approximation."""
    return F.gelu(x, approximate="tanh")


# Those whose oneDNN form gives torch's numbers, NaN included.
_EPILOGUES: dict[Activation, tuple[str, str]] = {
    F.gelu: ("gelu", "none"),
    tanh_gelu: ("gelu", "tanh"),
    F.silu: ("swish", ""),
    torch.tanh: ("tanh", ""),
}


class Linear(nn.Linear):
    """torch's linear layer, forward and backward by oneDNN where that is the faster library.

    `whole` is False where the weights come from other processes when the layer is called, and only then.
    """

    whole = True

    def forward(self, x: Float[Tensor, "*m I"]) -> Float[Tensor, "*m O"]:
        if not _by_onednn(x):
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return _Product.apply(x, self.weight, self.bias)
        return _multiply(x, self.weight, self.bias)


def _by_onednn(x: Tensor) -> bool:
    plain = x.dtype != torch.float32 or x.device.type != "cpu" or x.ndim != 2 or not len(x)
    return ONEDNN and not plain and not torch.is_autocast_enabled("cpu")


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, epilogue: tuple[str, str] = ("none", "")) -> Tensor:
    """epilogue(x W^T + b)."""
    name, algorithm = epilogue
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)


class _Product(torch.autograd.Function):
    """x W^T + b. On Zen 4 the weights' gradient is the one product that MKL computes faster; on Zen 5 it takes 1.9 times
    as long there, so that all three are oneDNN's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        slope = slope.contiguous()
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _multiply(slope, weight.mT, None) if for_x else None,
            _multiply(slope.mT, x.mT, None) if for_weight else None,
            slope.sum(0) if for_bias else None,
        )


def activated(layer: nn.Module, x: Float[Tensor, "M I"], activation: Activation) -> Float[Tensor, "M O"]:
    """activation(layer(x)), in one pass over the result where that is only read and oneDNN knows both.

    It moves last digits, and training computes scores with and without gradient, to the same bits: so not there.
    """
    if activation in _EPILOGUES and isinstance(layer, Linear) and only_read(layer) and _by_onednn(x):
        return _multiply(x, layer.weight, layer.bias, _EPILOGUES[activation])
    return activation(layer(x))


def only_read(part: nn.Module) -> bool:
    """Whether the result of a part of a network is only read, and may be computed in pieces: no gradient, no dropout,
    and no weights that every call fetches from other processes.
    """
    if part.training or torch.is_grad_enabled():
        return False
    return all(module.whole for module in part.modules() if isinstance(module, Linear))


def in_blocks(part: nn.Module, function: Callable[..., Tensor], *inputs: Float[Tensor, "M _"]) -> Float[Tensor, "M D"]:
    """function(*inputs) of a part of a network that treats every token alone: in blocks where they save time."""
    if len(inputs[0]) <= BLOCK_ROWS or inputs[0].device.type != "cpu" or not only_read(part):
        return function(*inputs)
    return torch.cat([function(*block) for block in zip(*(x.split(BLOCK_ROWS) for x in inputs), strict=True)])
