"""What a block computes on each token beside matrix products and attention, each as one pass over memory.

Their backward passes keep and compute only what a LoRA training needs; torch's own autograd is used for weights that
learn and in compiled code. On GPUs with Triton a pass is one kernel (`hv15.models.pass_kernels`); elsewhere it is made
of torch's operations, in place where that is possible.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from hv15.models import pass_kernels as kernels
from hv15.models.pass_kernels import EPS
from hv15.models.rope import rotate


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm of x [B, N, hidden] without weights, * (1 + scale) + shift; shift and scale are [B, 1, hidden]."""
    size = x.shape[-1:]
    if x.shape[0] == 1 and shift.numel() == scale.numel() == size[0]:  # they are weights that torch's kernel supports
        return F.layer_norm(x, size, 1 + scale.flatten(), shift.flatten(), EPS)
    normed = F.layer_norm(x, size, eps=EPS)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.addcmul(shift, normed, 1 + scale)
    return torch.addcmul(shift, normed, 1 + scale, out=normed)


def gelu(x: Tensor) -> Tensor:
    """GELU, tanh form, of x (any shape), which is overwritten if no gradients are wanted."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    done: Tensor = torch.ops.aten.gelu_.default(x, approximate="tanh")
    return done


def gated_sum(x: Tensor, gate: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """Return x + gate * y; x and y are [B, N, hidden], gate is [B, 1, hidden].

    Args:
        y: overwritten if no gradients are wanted and there is no `out`.
        out: without gradients, where to write the result.
    """
    if torch.compiler.is_compiling():
        done = torch.addcmul(x, gate, y)
        return done if out is None else out.copy_(done)
    if not torch.is_grad_enabled():
        return torch.addcmul(x, gate, y, out=y if out is None else out)
    summed: Tensor = _GatedSum.apply(x, gate, y)
    return summed


def head_norm(x: Tensor, weight: Tensor, rope: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """RMS norm of each head with a weight, then the rotation by position; computed in fp32, returned in x's dtype.

    Args:
        x: q or k, [B, N, H, D].
        weight: [D].
        rope: a `rope_table` [N, 1, D/2] of the tokens; None for tokens without a position.
        out: without gradients, where to write the result.
    """
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and weight.requires_grad):
        normed = F.rms_norm(x.float(), weight.shape, eps=EPS) * weight
        done = (normed if rope is None else rotate(normed, rope)).to(x.dtype)
        return done if out is None else out.copy_(done)
    if torch.is_grad_enabled() and x.requires_grad:
        made: Tensor = _HeadNorm.apply(x, weight, rope)
        return made
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    kernels.head_norm(x, weight, rope, out)
    return out


class _Context(FunctionCtx):
    """What a forward pass saves for the backward pass."""

    rope: Tensor | None
    weight: Tensor
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _HeadNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        scale = kernels.head_norm(x, weight, rope, out)
        ctx.weight, ctx.rope = weight, rope
        ctx.save_for_backward(x, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None]:
        x, scale = ctx.saved_tensors
        return kernels.head_norm_backward(grad, x, scale, ctx.weight, ctx.rope), None, None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(gate, *([y] if gate.requires_grad else []))
        return torch.addcmul(x, gate, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        gate, *kept = ctx.saved_tensors
        if not kept:
            return grad, None, grad * gate
        d_y, d_gate = kernels.gated_sum_backward(grad, gate, kept[0])
        return grad, d_gate, d_y
