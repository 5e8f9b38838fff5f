"""The one attention function of the transformer, and the kernels it can run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hv15.models.fused_attention import fused_attention, has_no_data

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [B, N, H, D] -> [B, N, H, D], without mask, scale 1/sqrt(D)."""

HEAD_GROUPS = 4
"""Into how many groups `split` divides the heads."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own attention."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


@dataclass(frozen=True)
class Attention:
    """Attention of every token to the valid tokens of its own sample."""

    kernel: Kernel = sdpa
    split: bool = False
    """Attend sample by sample and head group by head group: the kernel's own memory is that of one group."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        """Attend.

        Args:
            q, k, v: [B, N, H, D].
            lengths: valid tokens of each sample (the rest, at the end, is padding), as host integers.

        Returns:
            [B, N, H * D]; zeros in padding.
        """
        tokens = q.shape[1]
        if min(lengths) == tokens and not (self.split and len(lengths) > 1):
            return self._attend(q, k, v).flatten(2)
        # Sample by sample costs no mask of N x N, runs on every kernel, and computes no padding.
        samples = [
            F.pad(self._attend(q[i : i + 1, :n], k[i : i + 1, :n], v[i : i + 1, :n]), (0, 0, 0, 0, 0, tokens - n))
            for i, n in enumerate(lengths)
        ]
        return torch.cat(samples).flatten(2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.split:
            return self._run(q, k, v)
        size = -(-q.shape[2] // HEAD_GROUPS)
        groups = zip(*(each.split(size, 2) for each in (q, k, v)), strict=True)
        if torch.is_grad_enabled():
            return torch.cat([self._run(*group) for group in groups], 2)
        out = torch.empty_like(q)
        for place, group in zip(out.split(size, 2), groups, strict=True):
            place.copy_(self._run(*group))
        return out

    def _run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Without data nothing can be computed, and torch would plan its unfused path there.
        return fused_attention(q, k, v)[0] if has_no_data(q) else self.kernel(q, k, v)


ATTENTION = Attention()


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Attention with torch's own kernel, for a few tokens; as `Attention`."""
    return ATTENTION(q, k, v, lengths)
