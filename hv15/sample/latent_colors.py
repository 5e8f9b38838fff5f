"""A linear map from a VAE's latents to colors: what a video will look like, at a 16th of its size, without the decoder.

Each latent is 32 numbers for 16 x 16 pixels of 1 or 4 frames. The map gives the mean color of these pixels, as
weight . latent + bias. It is fitted once for a VAE, by least squares, on pictures drawn at random that the VAE encodes:
noise with as much of it at every scale as photographs have, moving a little. It is kept in a file with the VAE's
fingerprint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hv15.errors import UserError
from hv15.sample.files import read_tensors, write_tensors

if TYPE_CHECKING:
    from hv15.models import VAE

COLORS = {"weight": 2, "bias": 1}
"""The file: weight [3, C] and bias [3], float32, from unscaled latents to pixels of [-1, 1]."""
VAE_IDENTITY = "hv15.vae"
"""In the metadata: the fingerprint of the VAE that it was fitted for."""
EXPLAINED = "hv15.explained"
"""In the metadata: the share of the colors' variance, of other such pictures, that the map explains."""

_PICTURES, _HELD_OUT, _SIDE, _FRAMES = 24, 6, 128, 5
_SPEED = 3
"""Most pixels a frame that a picture moves."""
_RIDGE = 1e-6
"""Beside the mean square of the latents; for channels that are always the same."""


@dataclass(frozen=True)
class LatentColors:
    """The map of one VAE."""

    weight: Tensor
    """[3, C]."""
    bias: Tensor
    """[3]."""

    def pixels(self, latents: Tensor) -> Tensor:
        """Return the colors of unscaled latents [B, C, F', h, w]: [B, 3, F', h, w] of about [-1, 1]."""
        weight, bias = self.weight.to(latents), self.bias.to(latents)
        return torch.einsum("dc,bcfhw->bdfhw", weight, latents) + bias.view(3, 1, 1, 1)


def fit_colors(vae: VAE) -> tuple[LatentColors, float]:
    """Fit the map of a VAE; also return which share of the variance of other pictures' colors it explains."""
    latents, colors = _examples(vae)
    held_out = _HELD_OUT * len(latents) // _PICTURES
    fitted = _least_squares(latents[held_out:], colors[held_out:])
    shown = latents[:held_out].double() @ fitted.weight.double().T + fitted.bias.double()
    rest = (colors[:held_out] - shown).square().sum()
    spread = (colors[:held_out] - colors[:held_out].mean(0)).square().sum()
    return fitted, float(1 - rest / spread)


@torch.no_grad()
def _examples(vae: VAE) -> tuple[Tensor, Tensor]:
    """Return latents [N, C] and the mean colors [N, 3] of the pixels of each, float64, picture by picture."""
    generator = torch.Generator().manual_seed(0)
    space, time = vae.config.ffactor_spatial, vae.config.ffactor_temporal
    device = next(vae.parameters()).device
    latents, colors = [], []
    for _ in range(_PICTURES):
        clip = _moving_picture(generator)
        encoded = vae.encode(clip[None].to(device, vae.dtype))[0].double().cpu()  # (C, F', h, w)
        means = clip.double().unflatten(-1, (-1, space)).mean(-1).unflatten(-2, (-1, space)).mean(-2)  # (3, F, h, w)
        later = means[:, 1:].unflatten(1, (-1, time)).mean(2)
        latents.append(encoded.flatten(1).T)
        colors.append(torch.cat([means[:, :1], later], dim=1).flatten(1).T)
    return torch.cat(latents), torch.cat(colors)


def _moving_picture(generator: torch.Generator) -> Tensor:
    """Draw a clip [3, F, H, W] in [-1, 1]: a picture whose detail is as strong at each scale, and which moves."""
    picture = torch.zeros(1, 3, _SIDE, _SIDE)
    for octave in range(int(math.log2(_SIDE)) + 1):
        detail = torch.randn(1, 3, 2**octave, 2**octave, generator=generator)
        strength = 0.6 * torch.rand(1, generator=generator)
        picture += strength * interpolate(detail, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
    down, right = (int(step) for step in torch.randint(-_SPEED, _SPEED + 1, (2,), generator=generator))
    moved = [torch.roll(picture[0], (down * frame, right * frame), (1, 2)) for frame in range(_FRAMES)]
    return torch.stack(moved, dim=1).tanh()


def _least_squares(latents: Tensor, colors: Tensor) -> LatentColors:
    """Fit colors [N, 3] to latents [N, C], float64."""
    center, middle = latents.mean(0), colors.mean(0)
    x, y = latents - center, colors - middle
    ridge = _RIDGE * x.square().mean() * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y).T
    return LatentColors(weight.float(), (middle - weight @ center).float())


def write_colors(path: Path, colors: LatentColors, vae_identity: str, explained: float) -> None:
    """Write the map of a VAE with this identity.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    metadata = {VAE_IDENTITY: vae_identity, EXPLAINED: f"{explained:.4f}"}
    write_tensors(path, {"weight": colors.weight, "bias": colors.bias}, metadata)


def read_colors(path: Path, vae_identity: str) -> LatentColors | None:
    """Read the map of a VAE with this identity; None if there is none, or it is damaged or of another VAE."""
    try:
        tensors, metadata = read_tensors(path, COLORS, "hv15 sample")
    except UserError:
        return None
    if metadata.get(VAE_IDENTITY) != vae_identity:
        return None
    return LatentColors(tensors["weight"], tensors["bias"])
