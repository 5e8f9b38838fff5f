"""Spatial tiles that overlap and are blended, as in the official implementation.

Each tile is blended first with the tile above it, then with the tile to its left. A blend uses the neighbour after
its own blending; the first overlapping pixel is entirely the neighbour's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def run_tiled(network: Callable[[Tensor], Tensor], x: Tensor, tile: int, stride: int, blend: int, keep: int) -> Tensor:
    """Run `network` on tiles of x [B, C, F, H, W] and join the results.

    Args:
        tile, stride: size and distance of the tiles in x; tiles at the end may be smaller.
        blend, keep: overlap and kept size of a tile in the network's output.

    Returns:
        [B, C', F', H * keep / stride, W * keep / stride].
    """
    height, width = x.shape[-2:]
    out: Tensor | None = None
    above: list[Tensor] = []  # lowest `blend` lines of the tiles in the row above
    for row, top in enumerate(range(0, height, stride)):
        below: list[Tensor] = []
        left: Tensor | None = None
        for column, start in enumerate(range(0, width, stride)):
            result = network(x[..., top : top + tile, start : start + tile])
            if above:
                result = _blend(above[column], result, blend, dim=-2)
            if left is not None:
                result = _blend(left, result, blend, dim=-1)
            # Copied, because views would keep every tile in memory.
            left = _tail(result, blend, dim=-1).clone()
            below.append(_tail(result, blend, dim=-2).clone())
            kept = result[..., :keep, :keep]
            if out is None:
                out = result.new_empty(*result.shape[:3], *(size * keep // stride for size in (height, width)))
            out[..., row * keep : row * keep + kept.shape[-2], column * keep : column * keep + kept.shape[-1]] = kept
            del result, kept
        above = below
    assert out is not None
    return out


def _tail(x: Tensor, size: int, dim: int) -> Tensor:
    size = min(size, x.shape[dim])
    return x.narrow(dim, x.shape[dim] - size, size)


def _blend(before: Tensor, x: Tensor, size: int, dim: int) -> Tensor:
    """Fade from the end of `before` into the start of x along `dim`, linearly over at most `size` positions."""
    size = min(size, before.shape[dim], x.shape[dim])
    if size == 0:
        return x
    ramp = torch.arange(size, device=x.device, dtype=x.dtype) / size
    ramp = ramp.view(-1, 1) if dim == -2 else ramp
    mixed = _tail(before, size, dim) * (1 - ramp) + x.narrow(dim, 0, size) * ramp
    return torch.cat([mixed, x.narrow(dim, size, x.shape[dim] - size)], dim=dim)
