"""What super resolution starts from: the latents of a small video, enlarged, corrected by a network, and noised.

As in the official program: each frame is resized bilinearly, a latent upsampler corrects the result, and noise is
added once. The transformer then denoises a video of the large size from pure noise, and sees these latents in the steps
at high noise levels alone. All latents here are in the transformer's scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hv15.errors import UserError
from hv15.models.latents import low_resolution_channels
from hv15.models.super_resolution import NOISE
from hv15.models.upsampler_files import load_upsampler
from hv15.noise.levels import TIMESTEPS
from hv15.sample.noise import low_resolution_noise


@dataclass(frozen=True)
class LowResolution:
    """The condition of a model of super resolution."""

    latents: Tensor
    """Enlarged, corrected and noised, [B, C, F', H, W], float32."""

    @classmethod
    def noised(cls, latents: Tensor, seed: int) -> LowResolution:
        """Add the noise of a seed to corrected latents [B, C, F', H, W]."""
        return cls(with_noise(latents, low_resolution_noise(latents.shape, seed).to(latents.device)))

    def channels(self, level: float, like: Tensor) -> Tensor:
        """Return the transformer's channels [B, C + 1, F', H, W] at a noise level; zeros at a level below `NOISE`.

        Args:
            like: the noisy latents [B, C, F', H, W].
        """
        # compared as timesteps of single precision, like the official program's: 0.7 itself has them
        is_on = torch.tensor(TIMESTEPS * level, dtype=torch.float32).item() >= TIMESTEPS * NOISE
        return low_resolution_channels(self.latents if is_on else None, like)


def resized(latents: Tensor, rows: int, columns: int) -> Tensor:
    """Resize latents [B, C, F', h, w] frame by frame, bilinearly, to float32 [B, C, F', rows, columns]."""
    frames = rearrange(latents.float(), "b c f h w -> (b f) c h w")
    frames = F.interpolate(frames, size=(rows, columns), mode="bilinear", align_corners=False)
    return rearrange(frames, "(b f) c h w -> b c f h w", b=latents.shape[0])


def with_noise(latents: Tensor, noise: Tensor) -> Tensor:
    """Return 0.3 * latents + 0.7 * noise, both [B, C, F', H, W], in float32; the latents are rounded to bfloat16."""
    return (1 - NOISE) * latents.bfloat16().float() + NOISE * noise.float()


@torch.no_grad()
def upsampled(latents: Tensor, rows: int, columns: int, path: Path, device: torch.device) -> Tensor:
    """Enlarge latents [B, C, F', h, w] with the latent upsampler of a file: float32 [B, C, F', rows, columns], on CPU.

    Raises:
        UserError: the file cannot be loaded or is for latents of another model, or the result is not finite.
    """
    upsampler = load_upsampler(path, device=device)
    if upsampler.channels != latents.shape[1]:
        raise UserError.at(
            path,
            f"corrects latents of {upsampler.channels} channels, but these have {latents.shape[1]}",
            hint="set models.upsampler to a model that belongs to the VAE",
        )
    found = upsampler(resized(latents.to(device), rows, columns)).cpu()
    if not bool(torch.isfinite(found).all()):
        raise UserError.at(path, "returned NaN or infinity", hint="download it again")
    return found
