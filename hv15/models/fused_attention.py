"""Attention as one operation that keeps no N x N tensor: it has the memory use of a fused kernel, for planning.

Tensors without data (the meta device, fake tensors) use it instead of a kernel, because torch would choose its unfused
path for them, which keeps all scores. So a step on the meta device plans the memory that it takes on a GPU.

Forward keeps q, k, v, the output and, for each row, the logarithm of the softmax's sum; backward recomputes the scores
(Dao et al. 2022, "FlashAttention"). The implementation for real tensors is the plain definition, for tests. A real
kernel also has its own workspaces in backward: dq summed in fp32, two copies of q in bfloat16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.library.custom_op("hv15::fused_attention", mutates_args=())
def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention without mask, scale 1/sqrt(D): q, k, v [B, N, H, D] -> out [B, N, H, D], logsumexp fp32 [B, H, N]."""
    scores = _scores(q, k)
    return _mix(scores.softmax(-1), v).to(q.dtype).contiguous(), scores.logsumexp(-1)


@fused_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, tokens), dtype=torch.float32)


@torch.library.custom_op("hv15::fused_attention_backward", mutates_args=())
def fused_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v from `grad`, the output's; all are [B, N, H, D], `logsumexp` is [B, H, N]."""
    weights = (_scores(q, k) - logsumexp.unsqueeze(-1)).exp()  # (B, H, N, N)
    through = torch.einsum("bnhd,bmhd->bhnm", grad.float(), v.float())
    kept = (grad.float() * out.float()).sum(-1).transpose(1, 2).unsqueeze(-1)  # (B, H, N, 1)
    d_scores = weights * (through - kept) / math.sqrt(q.shape[-1])
    dq, dk = _mix(d_scores, k), _mix(d_scores.transpose(2, 3), q)
    dv = _mix(weights.transpose(2, 3), grad)
    return dq.to(q.dtype).contiguous(), dk.to(k.dtype).contiguous(), dv.to(v.dtype).contiguous()


@fused_attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) / math.sqrt(q.shape[-1])


def _mix(weights: Tensor, values: Tensor) -> Tensor:
    """Rows of `values` [B, M, H, D] summed with weights [B, H, N, M]: [B, N, H, D]."""
    return torch.einsum("bhnm,bmhd->bnhd", weights, values.float())


class _Context(torch.autograd.function.FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _keep(ctx: _Context, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: _Context, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = fused_attention_backward(grad, *ctx.saved_tensors)
    return gradients


fused_attention.register_autograd(_backward, setup_context=_keep)
