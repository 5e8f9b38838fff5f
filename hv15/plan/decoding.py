"""Memory and arithmetic of decoding a video: run on tensors without data, as in `hv15.plan.encoders`.

A video is decoded a chunk of frames at a time, and, where there are tiles, one tile after the other. So the peak is
that of a chunk. What grows with the frames are the latents, and keys and values of the decoder's one attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from hv15.memory import ACTIVATIONS
from hv15.models.spool import by_frames
from hv15.models.vae import VAE
from hv15.models.vae_decoding import Tiling, frame_parts, narrow_chunks, side_by_side, window_chunks
from hv15.models.vae_pixels import to_bytes
from hv15.models.vae_tiling import TileGrid
from hv15.models.vae_windows import SeamlessTile, windows
from hv15.plan.cost import Cost
from hv15.plan.encoders import PICTURE, TILE, meter_of, over_frames
from hv15.plan.kernels import WithoutData
from hv15.plan.meter import Meter
from hv15.plan.work import NONE, WorkByKind, scaled_work

Latent = tuple[int, int, int]
"""Frames, rows and columns."""


def decoding(vae: VAE, latent: Latent, tiling: Tiling) -> Cost:
    """Return what a video takes, from latents to bytes."""
    moments = list(_moments(vae, latent, tiling))
    return Cost(max(moments, key=lambda each: each.peak).parts, reduce(_sum, (each.work for each in moments)))


def waiting_bytes(vae: VAE, latent: Latent, tiling: Tiling) -> int:
    """Return the size of the file in which tiles wait for each other while a video is decoded; 0 without tiles."""
    frames, rows, columns = latent
    grid = tiling.grid(vae, rows, columns)
    if grid is None:
        return 0
    length = (frames - 1) * vae.config.ffactor_temporal + 1
    cells, narrow = sum(height * width for height, width in _sizes(grid)), 0
    if tiling.seamless:  # side by side, after the narrow end of the whole picture
        cells, narrow = rows * columns, vae.config.block_out_channels[-1] * frames * rows * columns
    pixels = cells * vae.config.ffactor_spatial**2 * length
    return (vae.config.out_channels * pixels + narrow) * vae.dtype.itemsize


def _moments(vae: VAE, latent: Latent, tiling: Tiling) -> Iterator[Cost]:
    """Yield what is done one after the other."""
    _, rows, columns = latent
    scale = vae.config.ffactor_spatial
    whole = rows * scale, columns * scale
    grid = tiling.grid(vae, rows, columns)
    if grid is None:
        yield _chunks(vae, latent, whole, vae.decode_chunks, _as_bytes)
    elif tiling.seamless:
        parts = list(windows(vae.decoder, rows, columns, grid.tile))
        yield _chunks(vae, latent, whole, partial(narrow_chunks, vae), by_frames)
        yield _windows(vae, latent, parts)
        sizes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in (p.pixels for p in parts)]
        yield _joining(vae, latent, sizes, partial(side_by_side, all_windows=parts))
    else:
        yield _tiles(vae, latent, grid)
        sizes = [(height * scale, width * scale) for height, width in _sizes(grid)]
        yield _joining(vae, latent, sizes, grid.joined)


def _tiles(vae: VAE, latent: Latent, grid: TileGrid) -> Cost:
    """Return what all tiles take, of which none is larger than the first."""
    rows, columns = next(grid.tiles)
    sizes, scale = list(_sizes(grid)), vae.config.ffactor_spatial
    pixels = sizes[0][0] * scale, sizes[0][1] * scale
    tile = _chunks(vae, latent, pixels, lambda latents: vae.decode_chunks(latents[..., rows, columns]), by_frames)
    return _repeated(tile, sizes[0], sizes)


def _windows(vae: VAE, latent: Latent, parts: Sequence[SeamlessTile]) -> Cost:
    """Return what all seamless tiles take, after the narrow end.

    They see narrow frames [1, widest, F', rows, columns].
    """
    largest = max(parts, key=_area)
    widest, (rows, columns) = vae.config.block_out_channels[-1], largest.size

    def read(frames: slice[int, int, None]) -> Tensor:
        count: int = frames.stop - frames.start
        return torch.empty(1, widest, count, rows, columns, dtype=vae.dtype, device="meta")

    def produce(latents: Tensor) -> Iterator[Tensor]:
        return window_chunks(vae, largest, read, latents.shape[2])

    tile = _chunks(vae, latent, largest.computed, produce, by_frames)
    return _repeated(tile, largest.computed, [part.computed for part in parts])


def _chunks(
    vae: VAE,
    latent: Latent,
    pixels: tuple[int, int],
    produce: Callable[[Tensor], Iterable[Tensor]],
    finish: Callable[[Tensor], object],
) -> Cost:
    """Return what it takes to make something of all latents, chunk by chunk.

    Args:
        pixels: height and width, which decide the length of a chunk.
        produce: yields what is made of latents [1, C, F', rows, columns].
        finish: what is done with each chunk.
    """
    frames, rows, columns = latent

    def run(count: int) -> Meter:
        meter = meter_of(vae)
        with torch.no_grad(), WithoutData(), meter:
            for result in produce(torch.empty(1, vae.config.latent_channels, count, rows, columns, device="meta")):
                finish(result)
                del result
        return meter

    return over_frames(run, vae.chunk_groups(*pixels), frames)


def _joining(
    vae: VAE, latent: Latent, sizes: Sequence[tuple[int, int]], join: Callable[[Iterable[Tensor]], Tensor]
) -> Cost:
    """Return what it takes to join tiles of these sizes in pixels, a few frames at a time."""
    latents = torch.empty(1, vae.config.latent_channels, *latent, device="meta")
    parts = [part.stop - part.start for part in frame_parts(vae, latents)]
    meter = meter_of(vae)
    with torch.no_grad(), WithoutData(), meter, meter.making(PICTURE):
        meter.assign(PICTURE, latents)
        shape = 1, vae.config.out_channels, max(parts)
        _as_bytes(join(torch.empty(*shape, *size, dtype=vae.dtype, device="meta") for size in sizes))
    one = Cost.of(meter)
    return Cost(one.parts, scaled_work(one.work, sum(parts) / max(parts)))


def _area(part: SeamlessTile) -> int:
    return part.computed[0] * part.computed[1]


def _as_bytes(pixels: Tensor) -> None:
    """Check and convert pixels [1, 3, f, H, W], as the decoding stage does."""
    bool(torch.isfinite(pixels).all())
    to_bytes(pixels)


def _sizes(grid: TileGrid) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of each tile."""
    for rows, columns in grid.tiles:
        yield rows.stop - rows.start, columns.stop - columns.start


def _repeated(tile: Cost, size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> Cost:
    """Return the cost of tiles of these sizes, given that of a tile of one `size`: the same peak, more work."""
    parts = dict(tile.parts)
    parts[TILE] = parts.pop(ACTIVATIONS, 0)
    return Cost(parts, scaled_work(tile.work, sum(height * width for height, width in sizes) / (size[0] * size[1])))


def _sum(one: WorkByKind, other: WorkByKind) -> WorkByKind:
    return {kind: one.get(kind, NONE).plus(other.get(kind, NONE)) for kind in {**one, **other}}
