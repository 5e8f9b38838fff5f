"""From the config to the samples that it asks for. Loads no torch: the Snakefile plans with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.errors import UserError
from hv15.models.fingerprint import model_fingerprint
from hv15.models.variants import VARIANTS
from hv15.sample.prompts import ImageFile, LoRAFile, SampleSpec

if TYPE_CHECKING:
    from hv15.config import PromptSettings, Settings

BASE_SUFFIX = ".base"  # a prompt's own name holds no dot, so the two never meet

log = logging.getLogger(__name__)


def plan_samples(
    settings: Settings,
    variant: str,
    models: Mapping[str, str],
    fingerprint: Callable[[Path], str] = model_fingerprint,
) -> list[SampleSpec]:
    """Return the samples of a config, in its order; `with_base` adds one without the trained LoRA, `<name>.base`.

    Args:
        variant: the checkpoint in use, one of `hv15.models.variants.VARIANTS`.
        models: identity of each model by role, as the digests know it.
        fingerprint: of images and LoRA files; a cached one makes planning quick.

    Raises:
        UserError: an image or LoRA file is missing.
    """
    specs = []
    for prompt in settings.sample.prompts:
        spec = _plan(settings, settings.sample.complete(prompt), variant, models, fingerprint)
        specs.append(spec)
        if settings.sample.complete(prompt).with_base:
            specs.append(spec.without_trained_lora(spec.name + BASE_SUFFIX))
    return specs


def _plan(
    settings: Settings,
    prompt: PromptSettings,
    variant: str,
    models: Mapping[str, str],
    fingerprint: Callable[[Path], str],
) -> SampleSpec:
    """Resolve one prompt that `SampleSettings.complete` has filled."""
    official, where = VARIANTS[variant], f"sample.prompts: {prompt.name}"

    def found(path: str) -> str:
        file = settings.resolve(path)
        if not file.is_file():
            raise UserError(f"{where}: {file} does not exist", hint="correct the path in the config")
        return fingerprint(file)

    guidance = official.guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale
    if guidance > 1 and official.guidance_scale <= 1:
        log.warning("%s: guidance_scale %g on %s, which was distilled to need 1", where, guidance, variant)
    height, width = prompt.video_size
    return SampleSpec(
        name=prompt.name,
        task=settings.task,
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt if guidance > 1 else "",
        height=height,
        width=width,
        frames=prompt.video_length,
        steps=official.steps if prompt.infer_steps is None else prompt.infer_steps,
        guidance_scale=guidance,
        flow_shift=official.flow_shift if prompt.flow_shift is None else prompt.flow_shift,
        seed=prompt.seed,
        fps=prompt.fps,
        output_type=prompt.output_type,
        dtype=settings.sample.dtype,
        vae_sample_size=settings.sample.vae_sample_size,
        vae_tile_overlap=settings.sample.vae_tile_overlap,
        variant=variant,
        lora_multiplier=prompt.lora_multiplier,
        image=ImageFile(prompt.image_path, found(prompt.image_path)) if prompt.image_path else None,
        loras=tuple(LoRAFile(each.path, each.multiplier, found(each.path)) for each in prompt.loras),
        models=dict(models),
    )
