"""`hv15 sample`: each step loads one big model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import log_notes, lora_notes, sample_notes
from hv15.commands.options.stages import SampleCondition, SampleDecode, SampleDenoise
from hv15.data.captions import caption_key
from hv15.digest import digest
from hv15.errors import UserError
from hv15.models.advice import about_memory
from hv15.project import Project
from hv15.records.json_values import JsonObject, as_object
from hv15.records.spec import Spec
from hv15.sample.prompts import SampleSpec

log = logging.getLogger(__name__)


def condition(options: SampleCondition) -> None:
    """Encode the first image of an i2v sample."""
    from hv15.sample.condition import write_condition

    project = Project(options.config, options.overrides)
    log_to_stderr(project.settings.runtime.log_level)
    spec, made_from = _asked(project, options, lambda spec: spec.conditioning())
    vae, vision = project.models.path("vae"), project.models.path("image_encoder")
    write_condition(
        spec,
        project.root,
        vae,
        vision,
        options.out,
        made_from=made_from,
        device=project.settings.runtime.device,
        patch_conv=project.settings.sample.vae_enable_patch_conv,
    )


def denoise(options: SampleDenoise) -> None:
    """Make the latents of a sample."""
    from hv15.sample.sampling import sample_latents

    project = Project(options.config, options.overrides)
    log_to_stderr(project.settings.runtime.log_level)
    spec, made_from = _asked(project, options, lambda spec: spec.denoising(digest(project.training_spec)))
    loras = [project.root / lora.path for lora in spec.loras if lora.multiplier]
    of_loras = [sentence for path in loras for sentence in lora_notes(project, path)]
    of_memory = about_memory(project.models.facts, "sample", spec.quantize)
    log_notes(log, project, sample_notes(project, spec) + of_memory + of_loras)
    text = project.texts.store.read(caption_key(spec.prompt))
    negative = project.texts.store.read(caption_key(spec.negative_prompt)) if spec.guided else None
    sample_latents(
        spec,
        project.models.path("dit"),
        options.lora,
        text,
        negative,
        options.condition,
        options.out,
        made_from=made_from,
        root=project.root,
        device=project.settings.runtime.device,
        settings=project.settings.sample,
    )


def decode(options: SampleDecode) -> None:
    """Turn latents into a video or a folder of images."""
    from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
    from hv15.sample.decode import VIDEO_SUFFIX, decode_latents

    project = Project(options.config, options.overrides)
    log_to_stderr(project.settings.runtime.log_level)
    if options.out.suffix != VIDEO_SUFFIX and options.out.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        raise UserError(
            f"{options.out}: videos are written as {VIDEO_SUFFIX}, anything else is a folder of PNG images",
            hint=f"give a name that ends in {VIDEO_SUFFIX}, or that of a folder",
        )
    spec, made_from = None, None
    if options.spec is not None:
        spec, made_from = _read(options.spec)
    vae = project.models.path("vae")
    decode_latents(
        options.latents,
        vae,
        options.out,
        spec,
        made_from=made_from,
        device=project.settings.runtime.device,
        patch_conv=project.settings.sample.vae_enable_patch_conv,
    )


def _asked(
    project: Project, options: SampleCondition | SampleDenoise, depends: Callable[[SampleSpec], JsonObject]
) -> tuple[SampleSpec, JsonObject]:
    """What is to be sampled, by the planner's spec or by a name of the config, and what the result depends on."""
    if options.spec is not None:
        return _read(options.spec)
    if options.prompt is None:
        raise UserError("neither --spec nor --name is given", hint="give the name of a prompt with --name")
    spec = project.sample(options.prompt)
    return spec, depends(spec)


def _read(path: Path) -> tuple[SampleSpec, JsonObject]:
    spec = Spec.read(path)
    return SampleSpec.from_json(as_object(spec.details.get("sample")), source=str(path)), spec.wanted
