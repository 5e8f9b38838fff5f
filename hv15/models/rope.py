"""Rotary positions of the latent grid (Su et al. 2021, "RoFormer"), on three axes: time, height, width.

Pairs are interleaved as in the official implementation: (a, b) at channels (2i, 2i+1) rotate by
position * theta^(-2i/dim).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

Grid = tuple[int, int, int]  # latent frames, rows, columns
_KEPT = 16  # number of grids whose tables are cached; there are usually fewer training buckets


def rope_table(grid: Grid, dims: tuple[int, ...], theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Compute the rotation of each channel pair of every token of a grid; tokens are ordered by frame, row, column.

    Args:
        grid: latent (frames, rows, columns).
        dims: channels of a head that each axis rotates; even numbers whose sum is the head's width D.

    Returns:
        [F*H*W, 1, D/2] complex64: cos + i sin; the axis of size 1 broadcasts over the heads.
    """
    angles = []
    for axis, (size, dim) in enumerate(zip(grid, dims, strict=True)):
        frequency = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)
        position = torch.arange(size, dtype=torch.float32, device=device)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        angles.append(torch.outer(position, frequency).view(shape).expand(*grid, dim // 2))
    angle = torch.cat(angles, dim=-1).flatten(0, 2).unsqueeze(1)  # (F*H*W, 1, D/2)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate x [B, N, H, D] by a `rope_table` [N, 1, D/2] of its tokens; computed in fp32, returned in x's dtype."""
    if torch.compiler.is_compiling():  # kernel compilers do not support complex numbers, but fuse these operations
        cos, sin = torch.view_as_real(table).unbind(-1)  # (N, 1, D/2)
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, N, H, D/2)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)
    # As complex numbers, one product replaces four and a shuffle: five times as fast in eager mode.
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, N, H, D/2)
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


class RopeTables:
    """Caches a table [N, 1, D/2] for each grid and device, built on the device where it is used."""

    def __init__(self, dims: tuple[int, ...], theta: float) -> None:
        self.dims, self.theta = dims, theta
        self._tables: OrderedDict[tuple[Grid, torch.device], Tensor] = OrderedDict()

    def __call__(self, grid: Grid, device: torch.device) -> Tensor:
        key = (grid, device)
        if key not in self._tables:
            with torch.no_grad():
                self._tables[key] = rope_table(grid, self.dims, self.theta, device)
            if len(self._tables) > _KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]
