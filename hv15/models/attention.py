"""The one attention function of the transformer, and the kernels it can run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


# A kernel takes q, k, v [B, N, H, D], without mask, scale 1/sqrt(D), and returns [B, N, H, D].
BACKENDS: dict[str, Kernel] = {"sdpa": _sdpa}


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], backend: str = "sdpa") -> Tensor:
    """Attention of every token to the valid tokens of its own sample.

    Args:
        q, k, v: [B, N, H, D].
        lengths: valid tokens of each sample (the rest, at the end, is padding), as host integers.

    Returns:
        [B, N, H * D]; zeros in padding.
    """
    kernel = BACKENDS[backend]
    tokens = q.shape[1]
    if min(lengths) == tokens:
        return kernel(q, k, v).flatten(2)
    # Sample by sample costs no mask of N x N, runs on every kernel, and computes no padding.
    samples = [
        F.pad(kernel(q[i : i + 1, :n], k[i : i + 1, :n], v[i : i + 1, :n]), (0, 0, 0, 0, 0, tokens - n))
        for i, n in enumerate(lengths)
    ]
    return torch.cat(samples).flatten(2)
