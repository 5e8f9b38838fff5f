"""Spatial tiles that overlap and are blended, as in the official implementation.

Each tile is blended first with the tile above it, then with the tile to its left. A blend uses the neighbour after
its own blending; the first overlapping pixel is entirely the neighbour's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a network's input, and how its results are joined."""

    height: int
    width: int
    """Of the whole input."""
    tile: int
    stride: int
    """Size and distance of the tiles in the input; tiles at the end may be smaller."""
    blend: int
    keep: int
    """Overlap and kept size of a tile in the network's output."""

    @property
    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of each tile, from left to right, then from top to bottom."""
        for top in range(0, self.height, self.stride):
            for start in range(0, self.width, self.stride):
                bottom, end = min(top + self.tile, self.height), min(start + self.tile, self.width)
                yield slice(top, bottom), slice(start, end)

    def joined(self, results: Iterable[Tensor]) -> Tensor:
        """Blend the results [B, C, F, h, w] of all tiles, in their order: [B, C, F, H, W].

        H = height * keep / stride, and W likewise.
        """
        out: Tensor | None = None
        above: list[Tensor] = []  # lowest `blend` lines of the tiles in the row above
        below: list[Tensor] = []
        left: Tensor | None = None
        row, column, columns = 0, 0, len(range(0, self.width, self.stride))
        for result in results:
            if above:
                result = _blend(above[column], result, self.blend, dim=-2)
            if left is not None:
                result = _blend(left, result, self.blend, dim=-1)
            # Copied, because views would keep every tile in memory.
            left = _tail(result, self.blend, dim=-1).clone()
            below.append(_tail(result, self.blend, dim=-2).clone())
            kept = result[..., : self.keep, : self.keep]
            if out is None:
                whole = (size * self.keep // self.stride for size in (self.height, self.width))
                out = result.new_empty(*result.shape[:3], *whole)
            top, start = row * self.keep, column * self.keep
            out[..., top : top + kept.shape[-2], start : start + kept.shape[-1]] = kept
            del result, kept
            column += 1
            if column == columns:
                row, column, above, below, left = row + 1, 0, below, [], None
        assert out is not None
        return out


def run_tiled(network: Callable[[Tensor], Tensor], x: Tensor, grid: TileGrid) -> Tensor:
    """Run `network` on the tiles of x [B, C, F, height, width] and join the results, see `TileGrid.joined`."""
    return grid.joined(network(x[..., rows, columns]) for rows, columns in grid.tiles)


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
