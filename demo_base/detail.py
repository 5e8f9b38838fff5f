"""Adds to the latents of large clips the detail that the decoder leaves out.

The decoder draws edges softer than they are, so the latents from which it draws a clip best are not the clip's own.
What is missing in its drawing is encoded and added, twice. That would take long for all clips that super resolution is
trained on; so a linear map of neighbouring latents is fitted to what was added for some clips.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo_base.basis import CellBasis, to_pixels
from demo_base.closed_form import LeastSquares, taps
from demo_base.pairs import GROWTH, LARGE, drawn
from demo_base.vae import SIZES
from hv15.atomic import atomic_path
from hv15.demo import world
from hv15.models.latents import scale, unscale
from hv15.models.vae import VAE
from hv15.progress import Progress

CLIPS = 96
PASSES = 2
RIDGE = 0.03
_AT_ONCE = 8


class Detail:
    """A linear map from the latents around a cell to what is added to its own, for the first frame and for others."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        """`first` and `later`, [32, 27 * 32 + 1] each."""

    def added(self, latents: Tensor) -> Tensor:
        """Return scaled latents [B, 32, F', h, w] with their detail."""
        rows = taps(latents)  # (B, F', h, w, 865)
        found = [rows[:, :1] @ self.tensors["first"].T, rows[:, 1:] @ self.tensors["later"].T]
        return latents + torch.cat(found, 1).movedim(-1, 1)

    def save(self, path: Path) -> None:
        """Write the map to a safetensors file.

        Raises:
            UserError: the file cannot be written.
        """
        with atomic_path(path) as temporary:
            save_file(self.tensors, temporary)

    @classmethod
    def load(cls, path: Path) -> Detail:
        return cls(load_file(path))


def make_detail(basis: CellBasis, decoder: Path, seed: int, clips: int = CLIPS) -> Detail:
    """Fit the map to what the decoder of a file leaves out of some clips."""
    vae = VAE(SIZES)
    vae.decoder.load_state_dict(load_file(decoder))
    size = SIZES.latent_channels
    squares = {name: LeastSquares(size, size, ridge=RIDGE) for name in ("first", "later")}
    with Progress(clips, "detail", unit="clips") as progress, torch.no_grad():
        for start in range(0, clips, _AT_ONCE):
            looks = [drawn(number, seed) for number in range(start, min(start + _AT_ONCE, clips))]
            frames = [world.draw(shape, look.enlarged(GROWTH), size=LARGE) for _, shape, look in looks]
            latents, best = drawn_best(vae, basis, to_pixels(np.stack(frames)))
            rows, added = taps(latents), (best - latents).movedim(1, -1)
            squares["first"].add(rows[:, :1], added[:, :1])
            squares["later"].add(rows[:, 1:], added[:, 1:])
            progress.advance(len(looks))
    return Detail({name: each.solve() for name, each in squares.items()})


def drawn_best(vae: VAE, basis: CellBasis, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scaled latents of clips [B, 3, F, H, W], and those from which the VAE draws them better.

    Both are [B, 32, F', h, w].
    """
    latents = scale(basis.encode(pixels))
    best = latents
    for _ in range(PASSES):
        shown = vae.decode(unscale(best)).clamp(-1, 1)
        best = best + scale(basis.encode(pixels) - basis.encode(shown))
    return latents, best
