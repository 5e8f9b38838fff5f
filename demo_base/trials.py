"""Makes many samples of the toy world in one batch, to measure how often a model shows what the prompt asks for.

It uses the parts of `hv15 sample`: encoders, noise, denoising loop, VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hv15.data.pixels import Pixels
from hv15.demo.clips import concept_scenes
from hv15.demo.layout import DEMO_FILES
from hv15.demo.measure import MeasuredClip, measure
from hv15.demo.world import BACKGROUNDS, CONCEPT, Scene, scenes
from hv15.grid import latent_size
from hv15.models import Condition, load_glyph_encoder, load_image_encoder, load_text_encoder, load_vae
from hv15.models.latents import scale, unscale
from hv15.sample.condition import encode_frame
from hv15.sample.decode import to_frames
from hv15.sample.denoise import denoise, stack_conditions
from hv15.sample.noise import initial_noise
from hv15.sample.sampling import text_condition
from hv15.sample.schedule import sigmas

if TYPE_CHECKING:
    from hv15.models import VAE, DiT
    from hv15.models.glyphs import GlyphEncoder
    from hv15.models.text import TextEncoder
    from hv15.models.vision import ImageEncoder

DECODED_AT_ONCE = 8
"""Number of clips that are decoded at a time."""


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; the defaults are those of the demo's config.yaml."""

    steps: int = 16
    guidance: float = 3.0
    shift: float = 3.0
    seed: int = 1000
    """Seed of the first sample; each of the others has the next number."""
    text_tokens: int = 0
    """Texts are padded to at least so many tokens, which should not affect the samples."""


@dataclass(frozen=True)
class MeasuredSample:
    """One sample: the scene of its prompt, its frames, and what is measured in them."""

    scene: Scene
    frames: Pixels
    found: MeasuredClip

    @property
    def is_right(self) -> bool:
        """Whether shape, colour, motion and background are those of the prompt."""
        return not self.found.wrong(self.scene)

    @property
    def moves_right(self) -> bool:
        """Whether colour and motion are those of the prompt."""
        return self.found.moves_as(self.scene)

    @property
    def has_concept(self) -> bool:
        """Whether it moves like the concept, even if the prompt is another."""
        return self.found.motion == CONCEPT


@dataclass
class ToySampler:
    """Samples scenes with a transformer; holds the demo's other models in memory, in fp32 on the CPU.

    Args:
        paths: role -> file or folder, as in `hv15.demo.layout.DEMO_FILES`.
        size: frames, height and width of the samples in pixels.
    """

    paths: Mapping[str, Path]
    size: tuple[int, int, int] = (9, 64, 64)
    _texts: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: Path) -> ToySampler:
        """Make the sampler for a models directory with the demo's files."""
        return cls({role: directory / name for role, name in DEMO_FILES.items()})

    def sample(
        self,
        dit: DiT,
        scenes: Sequence[Scene],
        options: SamplingOptions | None = None,
        images: Sequence[Pixels] | None = None,
    ) -> list[MeasuredSample]:
        """Sample one clip of each scene in one batch and measure it.

        Args:
            images: for image-to-video, the first frame of each, uint8 [64, 64, 3].
        """
        clips = self.decoded(self.latents(dit, scenes, options, images))
        return [MeasuredSample(scene, clip, measure(clip)) for scene, clip in zip(scenes, clips, strict=True)]

    def latents(
        self,
        dit: DiT,
        scenes: Sequence[Scene],
        options: SamplingOptions | None = None,
        images: Sequence[Pixels] | None = None,
    ) -> Tensor:
        """Return the scaled latents of one sample of each scene, [B, 32, F', h, w]; arguments as for `sample`."""
        options = options or SamplingOptions()
        first: Tensor | None = None
        visions: list[Tensor | None] = [None] * len(scenes)
        if images is not None:
            first = scale(torch.stack([encode_frame(self.vae, image) for image in images]))
            visions = list(self.image_encoder.encode(list(images)).float())
        cond = self.conditions([scene.caption for scene in scenes], visions, options.text_tokens)
        uncond = self.conditions([""] * len(scenes), visions, 0) if options.guidance > 1 else None
        shape = (1, dit.config.latent_channels, *latent_size(*self.size))
        noise = torch.cat([initial_noise(shape, options.seed + number) for number in range(len(scenes))])
        levels = sigmas(options.steps, options.shift)
        return denoise(dit, noise, cond, uncond, levels, options.guidance, first, batch_cfg=True)

    def decoded(self, latents: Tensor) -> list[Pixels]:
        """Decode scaled latents [B, 32, F', h, w] to clips, uint8 [F, H, W, 3] each."""
        with torch.no_grad():
            pixels = [clip for part in unscale(latents).split(DECODED_AT_ONCE) for clip in self.vae.decode(part)]
        return [to_frames(clip[None]) for clip in pixels]

    def text(self, prompt: str) -> dict[str, Tensor]:
        """Return the states of a prompt, as in the store: `text` [L, D], `glyphs` [G, D']."""
        if prompt not in self._texts:
            (states,), (glyphs,) = self.text_encoder.encode([prompt]), self.glyph_encoder.encode([prompt])
            self._texts[prompt] = {"text": states.float(), "glyphs": glyphs.float()}
        return self._texts[prompt]

    def conditions(self, prompts: Sequence[str], visions: Sequence[Tensor | None], tokens: int = 0) -> Condition:
        """Return the condition of a batch of prompts, with SigLIP's states of the first frames for i2v, [N, D] each."""
        each = [
            text_condition(self.text(prompt), vision, glyphs=True)
            for prompt, vision in zip(prompts, visions, strict=True)
        ]
        return padded(stack_conditions(each), tokens)

    @cached_property
    def vae(self) -> VAE:
        return load_vae(self.paths["vae"], dtype=torch.float32)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        return load_text_encoder(self.paths["text_encoder"], self.paths["tokenizer"], dtype=torch.float32)

    @cached_property
    def glyph_encoder(self) -> GlyphEncoder:
        return load_glyph_encoder(self.paths["glyph_encoder"], dtype=torch.float32)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        return load_image_encoder(self.paths["image_encoder"], dtype=torch.float32)


def padded(condition: Condition, tokens: int) -> Condition:
    """Return the condition padded to at least so many text tokens."""
    missing = max(0, tokens - condition.text.shape[1])
    return replace(condition, text=pad(condition.text, (0, 0, 0, missing)))


def spread(every: Sequence[Scene], count: int) -> list[Scene]:
    """Return so many of the scenes, far apart in the list; the step is coprime to the palettes' sizes."""
    return [every[(number * 89) % len(every)] for number in range(count)]


def unseen_concepts() -> list[Scene]:
    """Return the scenes of the concept that are not among the demo's clips."""
    return [scene for scene in scenes(motions=(CONCEPT,)) if scene not in concept_scenes()]


def contrast(samples: Sequence[MeasuredSample]) -> float:
    """Return the contrast of samples relative to the palette: the slope of measured over true background colours.

    A wrong scale of the latents makes samples pale or garish, which the names of their colours would not show.
    """
    true = np.array([BACKGROUNDS[each.scene.background] for each in samples], np.float64).ravel()
    found = np.array([each.found.back for each in samples]).ravel()
    return float(np.polyfit(true, found, 1)[0])


def share(samples: Sequence[MeasuredSample], holds: Callable[[MeasuredSample], bool]) -> float:
    """Return the fraction of the samples, 0 to 1, for which a condition holds."""
    return sum(map(holds, samples)) / len(samples)
