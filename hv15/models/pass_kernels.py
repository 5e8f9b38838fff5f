"""The passes of `hv15.models.passes` without autograd: with torch's operations, and as one operation each.

The second form is for GPUs, where `hv15.models.triton_kernels` computes it, and for tensors without data, so that a
plan counts what a GPU does.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from hv15.models.weights.no_data import has_no_data

log = logging.getLogger(__name__)

ENABLED = True
"""Whether the second form is used, for the whole process: `train.fused_kernels`, `sample.fused_kernels`."""
EPS = 1e-6
"""Added to the mean square, so that no norm divides by zero."""
LARGEST_RANK = 128
"""Largest rank of a product that a pass adds, in 16 bits: its factors stay on the GPU's chip. In fp32 it is a quarter:
without tensor cores, Triton takes minutes to compile larger ones."""
PARTS = 128
"""Most parts of the tokens that are summed separately, in parallel, for the gradient of a gate."""


def head_norm(x: Tensor, weight: Tensor, rope: Tensor | None, out: Tensor) -> Tensor:
    """Write the RMS norm of x [B, N, H, D], weighted and rotated, to `out`; return 1 / RMS, fp32 [B, N, H, 1]."""
    if one_kernel(x) and _is_power_of_two(x.shape[-1]):
        scale: Tensor = torch.ops.hv15.head_norm(x, weight, _pairs(rope), out)
        return scale
    values = x.float()
    scale = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    scale.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
    done = torch.mul(values, scale, out=out if out.dtype == torch.float32 else None)
    done.mul_(weight)
    if rope is not None:
        _as_complex(done).mul_(rope)
    if done is not out:
        out.copy_(done)
    return scale


def head_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
    """Return the gradient of x [B, N, H, D] from that of `head_norm`'s output and the `scale` that it returned."""
    if one_kernel(x) and _is_power_of_two(x.shape[-1]):
        d_x: Tensor = torch.ops.hv15.head_norm_backward(grad, x, scale, weight, _pairs(rope))
        return d_x
    values, grad = x.float(), grad.float()
    if rope is None:
        d_normed = grad * weight
    else:
        turned = _as_complex(grad if grad.stride(-1) == 1 else grad.contiguous()) * rope.conj()
        d_normed = torch.view_as_real(turned).flatten(-2).mul_(weight)
    mean = (d_normed * values).sum(-1, keepdim=True).div_(x.shape[-1])
    d_normed.mul_(scale)
    return d_normed.addcmul_(values, mean.mul_(scale.pow(3)), value=-1).to(x.dtype)


def gated_sum_backward(grad: Tensor, gate: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of y [B, N, hidden] and of gate [B, 1, hidden] from that of x + gate * y."""
    if one_kernel(grad):
        d_y, parts = torch.ops.hv15.gated_sum_backward(grad, gate, y)
        return d_y, parts.sum(1, keepdim=True).to(gate.dtype)
    product = grad * y
    d_gate = product.sum(1, keepdim=True)
    return torch.mul(grad, gate, out=product), d_gate


def gelu_low_rank(x: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    """Write GELU(x + factor * hidden @ up^T), tanh form, to `out`, which may be x; only as one operation.

    Args:
        x, out: [n, width].
        hidden: [n, rank].
        up: [width, rank].
    """
    torch.ops.hv15.gelu_low_rank(x, hidden, up, factor, out)


def gelu_low_rank_backward(grad: Tensor, x: Tensor, hidden: Tensor, up: Tensor, factor: float) -> Tensor:
    """Return the gradient of x + factor * hidden @ up^T, [n, width], from that of `gelu_low_rank`'s output."""
    d_x: Tensor = torch.ops.hv15.gelu_low_rank_backward(grad, x, hidden, up, factor)
    return d_x


def gated_low_rank(x: Tensor, gate: Tensor, y: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    """Write x + gate * (y + factor * hidden @ up^T) to `out`; only as one operation.

    Args:
        x, out: [B, N, width].
        gate: [B, 1, width].
        y: [B * N, width].
        hidden: [B * N, rank].
        up: [width, rank].
    """
    torch.ops.hv15.gated_low_rank(x, gate, y, hidden, up, factor, out)


def one_kernel(x: Tensor) -> bool:
    """Whether a pass over this tensor, of any shape, is one operation."""
    return ENABLED and (has_no_data(x) or (x.is_cuda and triton_works(x.device)))


def takes_low_rank(x: Tensor, rank: int) -> bool:
    """Whether a pass over a tensor of any shape can add a product of this rank in the same operation."""
    return one_kernel(x) and rank <= (LARGEST_RANK if x.dtype.itemsize == 2 else LARGEST_RANK // 4)


@cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton can make kernels for a GPU. It is tried out: besides Triton it takes a C compiler and a driver."""
    if find_spec("triton") is None:
        return False
    try:
        from hv15.models import triton_kernels

        triton_kernels.try_out(device)
    except Exception as error:  # of Triton, of the C compiler or of the driver
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        log.warning("fused_kernels: Triton makes no kernels here (%s), so torch's operations are used: slower", reason)
        return False
    return True


def parts_of(tokens: int) -> int:
    """Return the number of parts into which this many tokens are divided for a sum over them."""
    return min(PARTS, -(-tokens // 16))


def _is_power_of_two(size: int) -> bool:
    return size & (size - 1) == 0


def _pairs(rope: Tensor | None) -> Tensor | None:
    return None if rope is None else torch.view_as_real(rope)  # (N, 1, D/2, 2)


def _as_complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


@torch.library.custom_op("hv15::head_norm", mutates_args=("out",), device_types="cuda")
def _head_norm(x: Tensor, weight: Tensor, rope: Tensor | None, out: Tensor) -> Tensor:
    from hv15.models import triton_kernels

    return triton_kernels.head_norm(x, weight, rope, out)


@_head_norm.register_fake
def _(x: Tensor, weight: Tensor, rope: Tensor | None, out: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


@torch.library.custom_op("hv15::head_norm_backward", mutates_args=(), device_types="cuda")
def _head_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
    from hv15.models import triton_kernels

    return triton_kernels.head_norm_backward(grad, x, scale, weight, rope)


@_head_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hv15::gated_sum_backward", mutates_args=(), device_types="cuda")
def _gated_sum_backward(grad: Tensor, gate: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    from hv15.models import triton_kernels

    return triton_kernels.gated_sum_backward(grad, gate, y, parts_of(y.shape[1]))


@_gated_sum_backward.register_fake
def _(grad: Tensor, gate: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    batch, tokens, width = y.shape
    return y.new_empty(y.shape), y.new_empty((batch, parts_of(tokens), width), dtype=torch.float32)


@torch.library.custom_op("hv15::gelu_low_rank", mutates_args=("out",), device_types="cuda")
def _gelu_low_rank(x: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    from hv15.models import triton_kernels

    triton_kernels.gelu_low_rank(x, hidden, up, factor, out)


@_gelu_low_rank.register_fake
def _(x: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    return None


@torch.library.custom_op("hv15::gelu_low_rank_backward", mutates_args=(), device_types="cuda")
def _gelu_low_rank_backward(grad: Tensor, x: Tensor, hidden: Tensor, up: Tensor, factor: float) -> Tensor:
    from hv15.models import triton_kernels

    return triton_kernels.gelu_low_rank_backward(grad, x, hidden, up, factor)


@_gelu_low_rank_backward.register_fake
def _(grad: Tensor, x: Tensor, hidden: Tensor, up: Tensor, factor: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hv15::gated_low_rank", mutates_args=("out",), device_types="cuda")
def _gated_low_rank(x: Tensor, gate: Tensor, y: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    from hv15.models import triton_kernels

    triton_kernels.gated_low_rank(x, gate, y, hidden, up, factor, out)


@_gated_low_rank.register_fake
def _(x: Tensor, gate: Tensor, y: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    return None
