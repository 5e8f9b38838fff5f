"""Defines the toy world's latents: the 32 principal components of each cell of a clip.

A cell is 16x16 pixels of the first frame, or of four later frames. The encoder learns to compute these numbers, the
decoder to invert them and the transformer to generate them, so the three can be trained in parallel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from hv15.atomic import atomic_path
from hv15.demo import world
from hv15.models.latents import SCALING_FACTOR

CHANNELS = 32
CLIPS = 1000
FLATTENING = 0.7
"""How much the components' standard deviations are equalised: 1 would make all 1, 0 would not change them."""


class CellBasis:
    """A linear map from cells to latents, one for the first frame and one for later frames."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        """`first.mean` [768], `first.map` [32, 768], `later.mean` [3072], `later.map` [32, 3072]."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, F, H, W] in [-1, 1] to unscaled latents [B, 32, F', H/16, W/16]."""
        parts = [
            (cells - self.tensors[f"{name}.mean"]) @ self.tensors[f"{name}.map"].T for name, cells in cells_of(pixels)
        ]
        return rearrange(torch.cat(parts, 1), "b f h w c -> b c f h w") / SCALING_FACTOR

    def metric(self) -> Tensor:
        """Return how much differences of scaled latents matter, [2, 32, 32]: in first frames, and in later ones.

        For a difference d of a cell, d.T @ metric @ d is the mean of its squared size and of that of the change in the
        pixels, which is scaled so that both are alike for differences in all directions.
        """
        found = []
        for name in ("first", "later"):
            rows = self.tensors[f"{name}.map"].double()
            pixels = torch.linalg.inv(rows @ rows.T)
            found.append((torch.eye(CHANNELS, dtype=torch.float64) + pixels / pixels.diagonal().mean()) / 2)
        return torch.stack(found).float()

    def save(self, path: Path) -> None:
        """Write the map to a safetensors file.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_path(path) as temporary:
            save_file(self.tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> CellBasis:
        return cls(load_file(path))


def cells_of(pixels: Tensor) -> list[tuple[str, Tensor]]:
    """Divide pixels [B, 3, F, H, W] into cells.

    Returns:
        ("first", cells of the first frame [B, 1, h, w, 768]) and, if there are later frames, ("later", their cells
        [B, F'-1, h, w, 3072]).
    """
    pattern = "b c (f t) (h p) (w q) -> b f h w (t p q c)"
    first = rearrange(pixels[:, :, :1], pattern, t=1, p=16, q=16)
    if pixels.shape[2] == 1:
        return [("first", first)]
    return [("first", first), ("later", rearrange(pixels[:, :, 1:], pattern, t=4, p=16, q=16))]


def make_basis(seed: int) -> CellBasis:
    """Compute the components from clips that are rendered for it.

    The components of later frames are rotated so that those of a cell's mean over time are as close as possible to the
    first frame's components. So something that does not move keeps its numbers.
    """
    first_seed = 1_000_000 * (seed + 1)
    clips = np.stack([world.varied_clip(first_seed + number, variation=0.1) for number in range(CLIPS)])
    first, later = (cells.flatten(0, 3).double() for _, cells in cells_of(to_pixels(clips)))
    white_first, spread = _components(first)
    white_later, _ = _components(later)
    profile = spread ** (1 - FLATTENING)
    profile = profile / profile.square().mean().sqrt()
    still = later.unflatten(1, (4, -1)).mean(1)
    target = (still - first.mean(0)) @ white_first.T
    codes = (later - later.mean(0)) @ white_later.T
    u, _, v = torch.linalg.svd(target.T @ codes)
    return CellBasis(
        {
            "first.mean": first.mean(0).float(),
            "first.map": (profile[:, None] * white_first).float().contiguous(),
            "later.mean": later.mean(0).float(),
            "later.map": (profile[:, None] * (u @ v @ white_later)).float().contiguous(),
        }
    )


def _components(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map [32, N] to uncorrelated components of variance 1, largest first, and their deviations [32]."""
    centred = cells - cells.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))
    spread, vectors = values.flip(0)[:CHANNELS].sqrt(), vectors.flip(1)[:, :CHANNELS].T
    vectors = vectors * vectors.sum(1, keepdim=True).sign()  # fixes their arbitrary signs
    return vectors / spread[:, None], spread


def to_pixels(clips: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 [B, F, H, W, 3] to fp32 [B, 3, F, H, W] in [-1, 1]."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
