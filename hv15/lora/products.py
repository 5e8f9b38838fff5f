"""The outputs of adapters for a layer's input, computed from their factors; training and sampling share them.

LoHa and LoKr are computed here rather than by lycoris-lora's modules, which a training cannot use: their initial values
and dropout come from torch's global random numbers, which a resumed training does not have, they read a layer's
`weight`, which a quantised layer holds as codes, and LoHa copies its strength to the GPU in each step. Tests compare
values and gradients with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hv15.models.adapted import Linear


def add_product(output: Tensor, hidden: Tensor, up: Tensor, scale: float) -> Tensor:
    """Add scale * hidden @ up^T to output, in place; output (..., out), hidden (..., rank), up (out, rank)."""
    hidden, up = hidden.to(output.dtype), up.to(output.dtype)
    if output.ndim == 3:  # one fused call; for a flattened view, autograd would copy the whole gradient
        return output.baddbmm_(hidden, up.t().expand(output.shape[0], -1, -1), alpha=scale)
    if output.ndim == 2:
        return output.addmm_(hidden, up.t(), alpha=scale)
    return output + F.linear(hidden, up) * scale


def hadamard_output(x: Tensor, factors: Sequence[Tensor], scale: float) -> Tensor:
    """Return the output of a LoHa: x (..., in) @ (scale * (w1_a @ w1_b) * (w2_a @ w2_b))^T -> (..., out).

    The difference is made in fp32 in both passes and not kept.

    Args:
        factors: w1_a (out, rank), w1_b (rank, in), w2_a (out, rank), w2_b (rank, in).
    """
    output: Tensor = _Hadamard.apply(x, *factors, scale)
    return output


def kronecker_output(x: Tensor, w1: Tensor, w2: Sequence[Tensor], scale: float) -> Tensor:
    """Return the output of a LoKr: x (..., b * d) @ (scale * kron(w1, w2))^T -> (..., a * c), without that product.

    Args:
        w1: (a, b).
        w2: (c, d), or its factors (c, rank) and (rank, d).
    """
    outer, inner = (w1 * scale).to(x.dtype), [factor.to(x.dtype) for factor in w2]
    hidden = F.linear(x.unflatten(-1, (outer.shape[1], -1)), inner[-1])  # (..., b, rank or c)
    hidden = F.linear(hidden.transpose(-1, -2), outer).transpose(-1, -2)  # (..., a, rank or c)
    if len(inner) == 2:
        hidden = F.linear(hidden, inner[0])
    return hidden.flatten(-2)


def scaled_change(base: Tensor, bias: Tensor | None, change: Tensor, growth: Tensor) -> Tensor:
    """Return what a DoRA that scales rows adds to a layer's output: change + growth * (base - bias + change).

    Args:
        base: the layer's output (..., out) without any LoRA.
        bias: [out], which is not scaled.
        change: the adapter's output (..., out).
        growth: [out], the relative growth of each row: magnitude / norm - 1. It is small, so it keeps its digits in
            16 bits, which a factor near 1 would not.
    """
    whole = base + change if bias is None else base - bias + change
    return torch.addcmul(change, whole, growth.to(base.dtype))


def grown(changed: Tensor, layer: Linear, growth: Tensor) -> Tensor:
    """Return changed + growth * (changed - the layer's bias), its output with a DoRA; see `scaled_change`.

    Args:
        changed: base + change, (..., out), which is kept for the backward pass.
    """
    output: Tensor = _Grown.apply(changed, layer, growth)
    return output


def squared_norm_of_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Frobenius norm () of left (rows, rank) @ right (rank, columns), without that product.

    It is the sum of (left^T left) * (right right^T), which are (rank, rank).
    """
    return ((left.t() @ left) * (right @ right.t())).sum()


class _Context(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]
    scale: float
    layer: Linear
    needs_input_grad: tuple[bool, ...]


class _Grown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, changed: Tensor, layer: Linear, growth: Tensor) -> Tensor:
        # Keeps the layer, not its bias: block swap may replace it.
        ctx.save_for_backward(changed, growth)
        ctx.layer = layer
        cast = growth.to(changed.dtype)
        output = torch.addcmul(changed, changed, cast)
        return output if layer.bias is None else output.sub_(cast * layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (changed, growth), bias = ctx.saved_tensors, ctx.layer.bias
        d_growth = None
        if ctx.needs_input_grad[2]:
            rows = grad.flatten(0, -2)
            d_growth = (rows * changed.flatten(0, -2)).sum(0, dtype=growth.dtype)
            if bias is not None:
                d_growth -= rows.sum(0, dtype=growth.dtype) * bias
        return torch.addcmul(grad, grad, growth.to(grad.dtype)), None, d_growth


class _Hadamard(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, scale: float
    ) -> Tensor:
        # The factors are not saved, because saved-tensor hooks would copy them.
        ctx.factors, ctx.scale = (w1_a, w1_b, w2_a, w2_b), scale
        ctx.save_for_backward(x)
        one, other = _two_products(ctx.factors)
        return F.linear(x, one.mul_(other).mul_(scale).to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (w1_a, w1_b, w2_a, w2_b) = ctx.saved_tensors, ctx.factors
        one, other = _two_products(ctx.factors)
        d_x = grad @ (one * other).mul_(ctx.scale).to(grad.dtype) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return d_x, None, None, None, None, None
        rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        d_difference = (rows.t() @ inputs).float().mul_(ctx.scale)  # (out, in)
        d_one, d_other = other.mul_(d_difference), one.mul_(d_difference)
        return d_x, d_one @ w1_b.t(), w1_a.t() @ d_one, d_other @ w2_b.t(), w2_a.t() @ d_other, None


def _two_products(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    w1_a, w1_b, w2_a, w2_b = (factor.float() for factor in factors)
    return w1_a @ w1_b, w2_a @ w2_b
