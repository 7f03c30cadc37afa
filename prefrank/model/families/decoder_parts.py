"""The parts of a decoder's layer that treat every token alone, with backward passes that keep and compute less than
torch would for the same formulas.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from prefrank.model.heads import widened
from prefrank.model.linear import Activation


class Norm(nn.Module):
    """x over its root mean square (Zhang and Sennrich 2019, arXiv 1910.07467), in float32, times weights."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*m D"]) -> Float[Tensor, "*m D"]:
        return _Normed.apply(x, self.weight, self.eps)


class _Normed(torch.autograd.Function):
    """torch has a fast forward pass of this on a CPU; its backward pass is put together of many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        wide = widened(x)
        return F.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        width = x.shape[-1]
        rows = widened(x).reshape(-1, width)
        slopes, wide = slope.to(rows.dtype).reshape(-1, width), weight.to(rows.dtype)
        lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        inverse = torch.rsqrt(lengths.square() / width + ctx.eps)
        products = slopes * rows
        for_weight = (inverse.mT @ products)[0].to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, for_weight, None
        along = (products @ wide)[:, None] * inverse.pow(3) / width
        for_x = (slopes * wide).mul_(inverse).addcmul_(rows, along, value=-1)
        return for_x.view(x.shape).to(x.dtype), for_weight, None


def rotate(
    x: Float[Tensor, "M H d"], cosines: Float[Tensor, "M r"], sines: Float[Tensor, "M r"]
) -> Float[Tensor, "M H d"]:
    """Queries or keys turned by their positions: channel c with channel c + r; those from 2 r on stay."""
    return _Rotated.apply(x, cosines[:, None], sines[:, None])


class _Rotated(torch.autograd.Function):
    """The slope is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines, 1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turn(slope, cosines, sines, -1), None, None


def _turn(x: Tensor, cosines: Tensor, sines: Tensor, sign: int) -> Tensor:
    half = cosines.shape[-1]
    wide = x.to(cosines.dtype)
    first, second = wide[..., :half], wide[..., half : 2 * half]
    turned = torch.empty(x.shape, dtype=wide.dtype, device=x.device)
    torch.mul(first, cosines, out=turned[..., :half]).addcmul_(second, sines, value=-sign)
    torch.mul(second, cosines, out=turned[..., half : 2 * half]).addcmul_(first, sines, value=sign)
    turned[..., 2 * half :] = wide[..., 2 * half :]
    return turned.to(x.dtype)


def gate(gated: Float[Tensor, "M W"], up: Float[Tensor, "M W"], activation: Activation) -> Float[Tensor, "M W"]:
    """activation(gated) * up."""
    return _Gated.apply(gated, up, activation)


class _Gated(torch.autograd.Function):
    """The activation is computed again in the backward pass, not kept."""

    @staticmethod
    def forward(ctx: Any, gated: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gated, up)
        ctx.activation = activation
        active = activation(gated)
        return active * up if active is gated else active.mul_(up)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        gated, up = ctx.saved_tensors
        with torch.enable_grad():
            leaf = gated.detach().requires_grad_()
            active = ctx.activation(leaf)
        (for_gated,) = torch.autograd.grad(active, leaf, slope * up)
        return for_gated, slope * active.detach(), None
