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
from hv15.grid import video_size
from hv15.models.latents import low_resolution_channels, scale
from hv15.models.super_resolution import NOISE
from hv15.models.upsampler_files import load_upsampler
from hv15.noise.levels import TIMESTEPS
from hv15.sample.files import read_latents
from hv15.sample.noise import low_resolution_noise
from hv15.sample.prompts import SampleSpec


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


def small_sample(spec: SampleSpec, path: Path | None) -> tuple[Tensor, SampleSpec]:
    """Read what a sample of super resolution enlarges.

    Returns:
        Its latents in the transformer's scale, float32 [1, C, F', h, w], and its spec.

    Raises:
        UserError: there is no such file, or it is of another size.
    """
    if path is None or spec.enlarges is None:
        raise UserError(f"{spec.name}: nothing is enlarged", hint="name the latents of the small sample with --low")
    latents, small, _ = read_latents(path)
    found, wanted = video_size(*latents.shape[1:]), (spec.frames, spec.enlarges.height, spec.enlarges.width)
    if found != wanted:
        sizes = ", but {} enlarges {} frames of {} x {}".format(spec.name, *wanted)
        raise UserError.at(path, "{} frames of {} x {}".format(*found) + sizes, hint="start the run again")
    return scale(latents[None].float()), small


class LatentEnlarger:
    """A latent upsampler in memory, which enlarges latents one after the other.

    Raises:
        UserError: its file cannot be loaded.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        self._upsampler = load_upsampler(path, device=device)

    @torch.no_grad()
    def __call__(self, latents: Tensor, rows: int, columns: int) -> Tensor:
        """Enlarge latents [B, C, F', h, w] to float32 [B, C, F', rows, columns], on the CPU.

        Raises:
            UserError: the upsampler is for latents of another model, or the result is not finite.
        """
        if self._upsampler.channels != latents.shape[1]:
            raise UserError.at(
                self._path,
                f"corrects latents of {self._upsampler.channels} channels, but these have {latents.shape[1]}",
                hint="set models.upsampler to a model that belongs to the VAE",
            )
        found = self._upsampler(resized(latents.to(self._device), rows, columns)).cpu()
        if not bool(torch.isfinite(found).all()):
            raise UserError.at(self._path, "returned NaN or infinity", hint="download it again")
        return found


def upsampled(latents: Tensor, rows: int, columns: int, path: Path, device: torch.device) -> Tensor:
    """Enlarge latents [B, C, F', h, w] with the latent upsampler of a file, as `LatentEnlarger` does.

    Returns:
        float32 [B, C, F', rows, columns], on the CPU.

    Raises:
        UserError: as `LatentEnlarger`.
    """
    return LatentEnlarger(path, device)(latents, rows, columns)
