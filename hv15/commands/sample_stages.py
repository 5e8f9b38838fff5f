"""`hv15 stage`: the parts of a sample, each of which loads one big model."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hv15.atomic import atomic_path
from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import denoising_notes, log_notes
from hv15.commands.options.stages import SampleCondition, SampleDecode, SampleDenoise, SampleUpsample
from hv15.commands.sample_work import LatentsWork, decoding_stage, enlarge, is_made
from hv15.commands.shard_failures import raise_failure
from hv15.commands.twin_copies import copy_twin
from hv15.data.captions import caption_key
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.out_of_memory import memory_advice
from hv15.project import Project
from hv15.ranks import is_rank, run_on_ranks
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.spec import Spec
from hv15.sample.prompts import LOW, SampleSpec
from hv15.terminal_text import one_line

log = logging.getLogger(__name__)

Made = Literal["a first image", "latents", "an enlarged sample", "a decoded sample"]

_FIELDS: dict[Made, str] = {
    "a first image": "image_encoder",
    "latents": "trained",
    "an enlarged sample": LOW,
    "a decoded sample": "latents",
}
"""For each product, a field that only its spec has."""


def condition(options: SampleCondition) -> None:
    """Encode the first image of an i2v sample.

    Raises:
        UserError: a model or the image cannot be used, or the config has no such sample.
    """
    if copy_twin(options.spec, options.out):
        return
    from hv15.sample.condition import write_condition

    project = Project(options.config, options.overrides, experiment=options.experiment)
    log_to_stderr(project.settings.runtime.log_level)
    spec, made_from = _spec_for(project, options, "a first image", lambda spec: spec.conditioning())
    take_gpu(project.settings.runtime.device)
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


def denoise(options: SampleDenoise) -> int | None:
    """Make the latents of a sample; return an exit code if other processes did it.

    Raises:
        UserError: a model, a LoRA or an encoded text cannot be used, or the config has no such sample.
    """
    if not is_rank() and copy_twin(options.spec, options.out):
        return None
    from hv15.commands.running_previews import running_previews
    from hv15.plan.guidance import batch_need
    from hv15.sample.sampler import sample_latents

    project = Project(options.config, options.overrides, experiment=options.experiment)
    log_to_stderr(project.settings.runtime.log_level)
    trained, text_settings = project.trained_digest, project.texts.settings_digest
    spec, made_from = _spec_for(project, options, "latents", lambda spec: spec.denoising(trained, text_settings))
    if (same := _same(options, spec, made_from)) is not None:
        print(f"copied from {one_line(str(same))}, which is the same", file=sys.stderr)
        with atomic_path(options.out) as part:
            shutil.copyfile(same, part)
        return None
    device = project.settings.runtime.device
    settings = project.settings.sample
    if (code := run_on_ranks(settings.context_parallel, device, settings.asks_for_gpus)) is not None:
        return code
    loras = [project.root / lora.path for lora in spec.loras if lora.multiplier]
    log_notes(log, project, denoising_notes(project, [spec], loras))
    text = project.texts.store.read(caption_key(spec.prompt))
    negative = project.texts.store.read(caption_key(spec.negative_prompt)) if spec.guided else None
    take_gpu(device)
    with running_previews(project).of(spec, options.out.parent) as watcher:
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
            device=device,
            settings=settings,
            need=batch_need(project.settings),
            watcher=watcher,
        )
    return None


def _same(options: SampleDenoise, spec: SampleSpec, made_from: JsonObject) -> Path | None:
    """Return the file that the plan names as perhaps the same sample, if it is: bytes that need no model."""
    if options.spec is None:
        return None
    named = Spec.read(options.spec).details.get("same")
    if not isinstance(named, str):
        return None
    return Path(named) if is_made(Path(named), spec, made_from) else None


def upsample(options: SampleUpsample) -> int | None:
    """Make a sample larger by super resolution; return an exit code if other processes did it.

    Raises:
        UserError: a model, a LoRA, an encoded text or the small sample cannot be used.
    """
    project = Project(options.config, options.overrides, experiment=options.experiment)
    settings = project.settings
    log_to_stderr(settings.runtime.log_level)
    if not is_rank() and copy_twin(options.spec, options.out):
        return None
    raise_failure(options.out, ProjectPaths(run=project.paths.run))
    spec, made_from = _read(options.spec, "an enlarged sample")
    code = run_on_ranks(settings.sample.context_parallel, settings.runtime.device, settings.sample.asks_for_gpus)
    if code is not None:
        return code
    enlarge(project, [LatentsWork(spec, made_from, options.out, options.lora, options.condition, low=options.low)])
    return None


def decode(options: SampleDecode) -> None:
    """Turn latents into a video or a folder of images.

    Raises:
        UserError: a name that is neither a video's nor a folder's, or latents that cannot be used.
    """
    if copy_twin(options.spec, options.out):
        return
    from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
    from hv15.records.outputs import DECODED, output_of
    from hv15.sample.decode import decode_latents

    project = Project(options.config, options.overrides, experiment=options.experiment)
    log_to_stderr(project.settings.runtime.log_level)
    if output_of(options.out) is None and options.out.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        files = ", ".join(output.suffix for output in DECODED if not output.is_folder)
        raise UserError.at(
            options.out,
            f"samples are written as {files}, anything else is a folder of PNG images",
            hint="give a name with such an ending, or that of a folder",
        )
    spec, made_from = None, None
    if options.spec is not None:
        raise_failure(options.out, ProjectPaths(run=project.paths.run))
        spec, made_from = _read(options.spec, "a decoded sample")
    if options.latents is None:
        raise UserError("--latents is missing", hint="give a .latents.safetensors file")
    vae = project.models.path("vae")
    take_gpu(project.settings.runtime.device)
    with memory_advice("decode" if spec is None else decoding_stage(spec)):
        decode_latents(
            options.latents,
            vae,
            options.out,
            spec,
            made_from=made_from,
            device=project.settings.runtime.device,
            patch_conv=project.settings.sample.vae_enable_patch_conv,
        )


def _spec_for(
    project: Project, options: SampleCondition | SampleDenoise, what: Made, depends: Callable[[SampleSpec], JsonObject]
) -> tuple[SampleSpec, JsonObject]:
    """Return what to sample, from the planner's spec or by a name in the config, and what the result depends on."""
    if options.spec is not None:
        raise_failure(options.out, ProjectPaths(run=project.paths.run))
        return _read(options.spec, what)
    if options.prompt is None:
        raise UserError("neither --spec nor --name is given", hint="give the name of a prompt with --name")
    spec = project.sample(options.prompt)
    return spec, depends(spec)


def _read(path: Path, what: Made) -> tuple[SampleSpec, JsonObject]:
    """Read the spec of one stage of a sample."""
    spec = Spec.read(path)
    content = spec.details.get("sample")
    if not isinstance(content, dict) or _FIELDS[what] not in spec.wanted:
        raise UserError.at(
            path, f"not the spec of {what}", hint=f"the specs of all stages are in {ProjectPaths().specs}"
        )
    return SampleSpec.from_json(content, source=str(path)), spec.wanted
