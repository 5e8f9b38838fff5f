"""Enlarges many clips of the toy world by super resolution in one batch, and measures what it gains over interpolation.

It uses the parts of `hv15 upsample`: upsampler, noise, denoising loop, VAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from demo_base.basis import to_pixels
from demo_base.pairs import LARGE
from demo_base.trials import ToySampler
from hv15.data.pixels import Pixels
from hv15.demo import world
from hv15.demo.layout import ENLARGES_TO
from hv15.demo.measure import centres, measure, psnr, sharpness
from hv15.demo.world import Scene
from hv15.grid import PIXELS_PER_CELL
from hv15.models import DiT, load_dit
from hv15.models.latents import scale
from hv15.models.super_resolution import SUPER_RESOLUTIONS
from hv15.sample.condition import encode_frame
from hv15.sample.denoise import denoise
from hv15.sample.noise import initial_noise
from hv15.sample.schedule import sigmas
from hv15.sample.super_resolution import LowResolution, upsampled


@dataclass(frozen=True)
class EnlargedClip:
    """A small clip, and what is made of it."""

    scene: Scene
    small: Pixels
    """What the VAE makes of the small latents, uint8 [F, 64, 64, 3]."""
    interpolated: Pixels
    """The same, enlarged bilinearly, uint8 [F, 96, 96, 3]."""
    enlarged: Pixels
    """The same, by super resolution, uint8 [F, 96, 96, 3]."""
    truth: Pixels | None
    """The scene drawn at the large size; None for a sample, of which nobody has drawn it."""

    @property
    def strays(self) -> float:
        """The largest distance between the shape's centres of the two large clips, in pixels."""
        return float(np.linalg.norm(centres(self.enlarged) - centres(self.interpolated), axis=1).max())

    @property
    def colour_change(self) -> float:
        """The largest difference between the mean colours of the two large clips, in levels of 255."""
        means = [clip.astype(np.float64).mean(axis=(0, 1, 2)) for clip in (self.enlarged, self.interpolated)]
        return float(np.abs(means[0] - means[1]).max())

    @property
    def sharpening(self) -> float:
        """How many times as steep the edges are as those of the interpolated clip."""
        before, after = (sharpness(clip).mean() for clip in (self.interpolated, self.enlarged))
        return float(after / before) if before else 1.0

    @property
    def gain(self) -> float:
        """How much nearer to the truth it is than the interpolated clip, in decibels."""
        assert self.truth is not None
        return psnr(self.enlarged, self.truth) - psnr(self.interpolated, self.truth)

    @property
    def moves_right(self) -> bool:
        """Whether colour and motion are those of the scene."""
        return measure(resized_clip(self.enlarged, world.SIZE)).moves_as(self.scene)


@dataclass
class ToyEnlarger:
    """Enlarges clips with the demo's models of super resolution, in fp32 on the CPU."""

    sampler: ToySampler

    def enlarge(
        self,
        latents: Tensor,
        scenes: Sequence[Scene],
        *,
        seed: int = 0,
        images: Sequence[Pixels] | None = None,
        truths: Sequence[Pixels] | None = None,
    ) -> list[EnlargedClip]:
        """Enlarge one clip of each scene in one batch; arguments as for `latents`.

        Args:
            truths: see `EnlargedClip`.
        """
        found = self.latents(latents, scenes, seed=seed, images=images)
        small, large = self.sampler.decoded(latents), self.sampler.decoded(found)
        return [
            EnlargedClip(scene, before, resized_clip(before, LARGE), after, truths[number] if truths else None)
            for number, (scene, before, after) in enumerate(zip(scenes, small, large, strict=True))
        ]

    def latents(
        self, latents: Tensor, scenes: Sequence[Scene], *, seed: int = 0, images: Sequence[Pixels] | None = None
    ) -> Tensor:
        """Return the large latents of one clip of each scene, scaled, [B, 32, F', 6, 6].

        Args:
            latents: the small ones, scaled, [B, 32, F', 4, 4].
            seed: that of the first clip; each of the others has the next number.
            images: for image-to-video, the large first frame of each, uint8 [96, 96, 3].
        """
        side, chosen = LARGE // PIXELS_PER_CELL, SUPER_RESOLUTIONS[ENLARGES_TO]
        low = upsampled(latents, side, side, self.sampler.paths["upsampler"], torch.device("cpu"))
        noised = [LowResolution.noised(each[None], seed + number).latents for number, each in enumerate(low)]
        noise = [initial_noise((1, *low.shape[1:]), seed + number) for number in range(len(low))]
        first: Tensor | None = None
        visions: list[Tensor | None] = [None] * len(scenes)
        if images is not None:
            first = scale(torch.stack([encode_frame(self.sampler.vae, image) for image in images]))
            visions = list(self.sampler.image_encoder.encode(list(images)).float())
        return denoise(
            self.dit,
            torch.cat(noise),
            self.sampler.conditions([scene.caption for scene in scenes], visions),
            None,
            sigmas(chosen.infer_steps, chosen.flow_shift),
            chosen.guidance_scale,
            first,
            low=LowResolution(torch.cat(noised)),
        )

    def enlarge_drawn(
        self, scenes: Sequence[Scene], *, look: int, seed: int = 0, images: Sequence[Pixels] | None = None
    ) -> list[EnlargedClip]:
        """Enlarge the drawn clip of each scene, whose large version is known.

        Args:
            look: the seed of size, position and speed.
            seed, images: as for `enlarge`.
        """
        drawn = to_pixels(np.stack([world.render(scene, look) for scene in scenes]))
        with torch.no_grad():
            latents = scale(self.sampler.vae.encode(drawn))
        truths = [world.render(scene, look, size=LARGE) for scene in scenes]
        return self.enlarge(latents, scenes, seed=seed, images=images, truths=truths)

    @cached_property
    def dit(self) -> DiT:
        return load_dit(self.sampler.paths["sr_dit"], dtype=torch.float32, super_resolution=True)


def similarity(found: Pixels, expected: Pixels) -> float:
    """Return the structural similarity (SSIM, Wang et al. 2004) of two clips, uint8 [F, H, W, 3]; 1 if they are equal.

    The window is a Gaussian of 1.5 pixels in 11, as in the paper; colours are compared one by one.
    """
    x, y = (rearrange(torch.from_numpy(clip), "f h w c -> (f c) 1 h w").double() for clip in (found, expected))
    bell = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    bell = bell / bell.sum()

    def local(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, bell.view(1, 1, 11, 1)), bell.view(1, 1, 1, 11))

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    small, smaller = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    brightness = (2 * mean_x * mean_y + small) / (mean_x**2 + mean_y**2 + small)
    return float((brightness * (2 * covariance + smaller) / (variances + smaller)).mean())


def resized_clip(frames: Pixels, side: int) -> Pixels:
    """Resize a clip, uint8 [F, H, W, 3], bilinearly to a square; a smaller one is smoothed first."""
    pixels = rearrange(torch.from_numpy(frames), "f h w c -> f c h w").float()
    found = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    clip: Pixels = rearrange(found.round().clamp(0, 255).byte(), "f c h w -> f h w c").numpy()
    return clip
