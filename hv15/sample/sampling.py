"""Denoises the sample of a spec with a transformer in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.lora.applied import AppliedLoRAs
from hv15.models import Condition
from hv15.models.latents import scale
from hv15.progress import Progress
from hv15.sample.cached import Cached
from hv15.sample.denoise import Guidance, denoise
from hv15.sample.files import CONDITION, read_tensors
from hv15.sample.graphs import Replayed
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import SampleSpec
from hv15.sample.schedule import sigmas
from hv15.sample.super_resolution import LowResolution

if TYPE_CHECKING:
    from hv15.models import DiT
    from hv15.sample.denoise import Transformer
    from hv15.sample.running import SampleWatcher


def run(
    dit: DiT | Replayed,
    spec: SampleSpec,
    text: Mapping[str, Tensor],
    negative: Mapping[str, Tensor] | None,
    first: Tensor | None,
    vision: Tensor | None,
    *,
    device: torch.device,
    batch_cfg: bool = False,
    after_step: Callable[[int], None] | None = None,
    low: Tensor | None = None,
    loras: AppliedLoRAs | None = None,
    watcher: SampleWatcher | None = None,
) -> Tensor:
    """Denoise the sample of a spec with a model in memory; return scaled latents, float32 [1, C, F', h, w].

    Args:
        first: unscaled latent [C, 1, h, w] of the first frame for i2v, else None.
        vision: SigLIP's states [729, 1152] of the first frame for i2v, else None.
        after_step: called with the number of finished steps; what it raises ends the sample.
        low: for a model of super resolution, what `super_resolution.upsampled` made, [1, C, F', h, w]; else None.
        loras: those on the model, whose strengths follow the sample's steps.
        watcher: see `denoise`.

    Raises:
        UserError: the model returned NaN or infinity.
    """
    if dit.config.low_resolution != (low is not None):
        raise ValueError("low-resolution latents are for models of super resolution, which need them")
    cond = text_condition(text, vision, glyphs=True).to(device)
    uncond = None
    if spec.guided:
        if negative is None:
            raise ValueError(f"{spec.name}: guidance {spec.guidance_scale} needs the states of the negative prompt")
        uncond = text_condition(negative, vision, glyphs=False).to(device)
    model: Transformer = dit
    if spec.step_cache is not None:
        if isinstance(dit, Replayed):
            raise ValueError("passes that reuse earlier steps differ, so they cannot be recorded")
        model = Cached(dit, spec.step_cache, spec.steps)

    def begin_step(step: int) -> bool:
        changed = loras is not None and loras.begin_step(step, spec.steps)
        if changed and isinstance(model, Cached | Replayed):
            model.forget()
        return changed

    noise = initial_noise((1, dit.config.latent_channels, *spec.latent_size), spec.seed).to(device)
    with Progress(spec.steps, f"denoise {spec.name}", unit="steps") as progress:

        def advance(step: int) -> None:
            progress.advance()
            if after_step is not None:
                after_step(step)

        return denoise(
            model,
            noise,
            cond,
            uncond,
            sigmas(spec.steps, spec.flow_shift),
            spec.guidance_scale,
            scale(first)[None].to(device) if first is not None else None,
            advance,
            batch_cfg=batch_cfg,
            guidance=Guidance(*spec.guidance_interval, zero_star=spec.cfg_zero_star),
            zero_init_steps=spec.zero_init_steps,
            low=None if low is None else LowResolution.noised(low.to(device), spec.seed),
            begin_step=begin_step,
            watcher=watcher,
        )


def text_condition(item: Mapping[str, Tensor], vision: Tensor | None, *, glyphs: bool) -> Condition:
    """Make a batch of one from a store item, text [L, 3584] and glyphs [G, 1472], and vision [729, 1152].

    Args:
        glyphs: False leaves out the glyphs, as the official program does for the negative prompt.
    """
    text, glyph = item["text"], item["glyphs"] if glyphs else item["glyphs"][:0]
    return Condition(
        text=text[None],
        text_lengths=[len(text)],
        glyphs=glyph[None],
        glyph_lengths=[len(glyph)],
        vision=None if vision is None else vision[None],
    )


def read_condition(spec: SampleSpec, path: Path | None) -> tuple[Tensor | None, Tensor | None]:
    """Return an i2v sample's first frame: latent [C, 1, h, w], unscaled, and vision [729, 1152]. None twice for t2v.

    Raises:
        UserError: the file is missing, damaged, or of another size.
    """
    if spec.task == "t2v":
        return None, None
    if path is None:
        raise UserError(
            f"{spec.name}: an i2v sample needs its encoded first frame",
            hint="make it with `hv15 stage condition` and pass it as --condition",
        )
    tensors, _ = read_tensors(path, CONDITION, "hv15 encode")
    latents = tensors["latents"]
    expected = (1, *spec.latent_size[1:])
    if latents.shape[1:] != expected:
        raise UserError.at(
            path,
            f"a first frame of {tuple(latents.shape[1:])} latent frames, rows, columns; expected {expected}",
            hint="start the run again, which encodes the image again",
        )
    return latents, tensors["vision"]
