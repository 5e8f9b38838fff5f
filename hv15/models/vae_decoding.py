"""Decodes a video part by part: neither its pixels nor its widest features are ever in memory as a whole.

The decoder is causal, so whole frames are simply decoded one chunk after the other. A tile, though, needs what the
convolutions keep of its earlier frames, and of all tiles together that is many times the video: so one tile is decoded
from its first frame to its last, and waits in a file until the others are there to be joined with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from hv15.models.spool import Spool
from hv15.models.vae import VAE
from hv15.models.vae_blocks import chunk_slices
from hv15.models.vae_tiling import TileGrid
from hv15.models.vae_windows import SeamlessTile, windows

_JOINED_BYTES = 32 << 20
"""Intended size of the frames that are joined from tiles at a time."""


@dataclass(frozen=True)
class Tiling:
    """Which tiles a picture is decoded in."""

    size: int = 0
    """Side of a tile in pixels; 0: no tiles. They are used when height or width exceeds it."""
    overlap: float = 0.0
    """The part of a tile that overlaps its neighbour, in which both are blended, as in the official implementation."""
    seamless: bool = False
    """Instead of blending, compute with each tile all that its pixels depend on: the numbers of the whole picture."""

    def grid(self, vae: VAE, height: int, width: int) -> TileGrid | None:
        """Return the tiles for latents of this size; None: there are none. Seamless tiles only have their size.

        Raises:
            ValueError: the tiles do not begin at latents.
        """
        return vae.decoding_grid(height, width, self.size, 0.0 if self.seamless else self.overlap)


def decoded_parts(vae: VAE, latents: Tensor, tiling: Tiling, folder: Path) -> Iterator[Tensor]:
    """Decode unscaled latents [B, C, F', h, w], without gradients: yield the pixels [B, 3, f, 16*h, 16*w] of the first
    frames, about [-1, 1] and unclamped, then those of the frames after them.

    Args:
        latents: on the VAE's device.
        folder: where tiles wait, in a file without a name.

    Raises:
        ValueError: the tiles do not begin at latents.
        OSError: the disk is full.
    """
    height, width = latents.shape[-2:]
    grid = tiling.grid(vae, height, width)
    if grid is None:
        yield from vae.decode_chunks(latents)
        return
    with Spool(folder) as spool:
        if tiling.seamless:
            yield from _seamless(vae, latents, list(windows(vae.decoder, height, width, grid.tile)), spool)
        else:
            yield from _blended(vae, latents, grid, spool)


def _blended(vae: VAE, latents: Tensor, grid: TileGrid, spool: Spool) -> Iterator[Tensor]:
    tiles = [spool.add(vae.decode_chunks(latents[..., rows, columns])) for rows, columns in grid.tiles]
    for frames in frame_parts(vae, latents):
        yield grid.joined(spool.read(tile, frames).to(latents.device) for tile in tiles)


def _seamless(vae: VAE, latents: Tensor, all_windows: Sequence[SeamlessTile], spool: Spool) -> Iterator[Tensor]:
    narrow = spool.add(narrow_chunks(vae, latents))

    def read(window: SeamlessTile, frames: slice) -> Tensor:
        part = spool.read(narrow, frames)[..., window.narrow[0], window.narrow[1]]
        return part.contiguous().to(latents.device)

    tiles = [spool.add(window_chunks(vae, window, partial(read, window), latents.shape[2])) for window in all_windows]
    for frames in frame_parts(vae, latents):
        yield side_by_side((spool.read(tile, frames).to(latents.device) for tile in tiles), all_windows)


def narrow_chunks(vae: VAE, latents: Tensor) -> Iterator[Tensor]:
    """Yield what the decoder's narrow end makes of latents [B, C, F', h, w]: [B, widest, f', h, w] at a time."""
    latents, stream = latents.to(vae.dtype), vae.new_stream()
    height, width = (size * vae.config.ffactor_spatial for size in latents.shape[-2:])
    for part in chunk_slices(latents.shape[2], vae.chunk_groups(height, width), stream):
        yield vae.decoder.narrow(latents[:, :, part], stream)


def window_chunks(vae: VAE, window: SeamlessTile, read: Callable[[slice], Tensor], frames: int) -> Iterator[Tensor]:
    """Yield the pixels [B, 3, f, rows, columns] of a seamless tile.

    Args:
        read: returns some of the `frames` frames of the narrow end, [B, widest, f', *window.size]; they are changed.
    """
    stream = vae.new_stream()
    for part in chunk_slices(frames, vae.chunk_groups(*window.computed), stream):
        yield vae.decoder.widened(read(part), stream, window.cuts)


def side_by_side(parts: Iterable[Tensor], all_windows: Sequence[SeamlessTile]) -> Tensor:
    """Put seamless tiles [B, 3, f, rows, columns] into one picture [B, 3, f, H, W]."""
    out: Tensor | None = None
    rows, columns = all_windows[-1].pixels
    for part, window in zip(parts, all_windows, strict=True):
        if out is None:
            out = part.new_empty(*part.shape[:3], rows.stop, columns.stop)
        out[..., window.pixels[0], window.pixels[1]] = part
    assert out is not None
    return out


def frame_parts(vae: VAE, latents: Tensor) -> Iterator[slice]:
    """Yield the frames of the pixels of latents [B, C, F', h, w] that are joined from tiles at a time."""
    pixels = latents.shape[-2] * latents.shape[-1] * vae.config.ffactor_spatial**2
    at_once = max(1, _JOINED_BYTES // (latents.shape[0] * vae.config.out_channels * pixels * vae.dtype.itemsize))
    length = (latents.shape[2] - 1) * vae.config.ffactor_temporal + 1
    for start in range(0, length, at_once):
        yield slice(start, min(start + at_once, length))
