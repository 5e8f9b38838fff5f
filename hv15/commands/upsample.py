"""`hv15 upsample`: enlarges a finished video by super resolution. Each model is loaded once, one at a time."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import check_writable
from hv15.choices import ENLARGING_ROLES, Role, Task, roles_of
from hv15.commands.encode import text_encoder
from hv15.commands.fetched_models import fetch_models
from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import enlarging_notes
from hv15.commands.options.sample import Upsample
from hv15.commands.sample import Parts
from hv15.commands.sample_work import check_machine, first_frame_encoder, loaded_decoder
from hv15.config.section import check_size
from hv15.data.captions import caption_key
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.models.facts import describe
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.out_of_memory import in_words, is_out_of_memory
from hv15.project import Project
from hv15.project.metadata import product_made_from
from hv15.project.request import SampleRequest, open_project
from hv15.ranks import is_first_rank, run_on_ranks
from hv15.records.json_values import JsonObject
from hv15.records.metadata import ENLARGED
from hv15.records.outputs import LATENTS, VIDEO, output_of
from hv15.sample.loras import loras_of
from hv15.sample.plan import plan_enlarged
from hv15.sample.prompts import Enlarged, ImageFile, SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.resolutions import enlarged_size, parse_size
from hv15.terminal_text import one_line

if TYPE_CHECKING:
    from hv15.sample.small_video import SmallVideo

log = logging.getLogger(__name__)


def upsample(options: Upsample) -> int | None:
    """Enlarge a video, unless that is done already; return an exit code if other processes did it.

    Raises:
        UserError: the file, a model or something that was asked for cannot be used.
    """
    from hv15.sample.small_video import look, origin

    file, out = options.file, _result(options)
    before = origin(file)
    project = _open(options, before)
    settings = project.settings
    log_to_stderr(settings.runtime.log_level)
    video = look(file, project.models.super_resolution.low)
    low = product_made_from(file) if video.latents is not None else None
    spec = _plan(project, options, video, before, low)
    if _is_made(project, spec, out, low):
        print(f"{one_line(str(out))}: already there", file=sys.stderr)
        return None
    code = run_on_ranks(settings.sample.context_parallel, settings.runtime.device, settings.sample.asks_for_gpus)
    if code is not None:
        return code
    if is_first_rank():
        _say(project, video, spec)
    check_machine(project)
    check_writable(out.parent)
    fetch_models(project, _roles(project))
    transformer = project.models.path("sr_dit")
    log.info("%s: %s", transformer, describe(transformer))
    try:
        _make(project, video, spec, out, before, low)
    except Exception as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory in super resolution: {in_words(error)}",
            hint="set sample.blocks_to_swap, sample.quantize: fp8 or sample.vae_sample_size: 128, or choose a smaller "
            "--size; what is finished is kept",
        ) from error
    if is_first_rank():
        print(one_line(str(out)), file=sys.stderr)
    return None


def _result(options: Upsample) -> Path:
    """The file to write.

    Raises:
        UserError: its name does not tell what it is to be.
    """
    if options.out is None:
        return options.file.parent / f"{_stem(options.file)}.sr{VIDEO.suffix}"
    if output_of(options.out) is None:
        raise UserError.at(
            options.out,
            "does not say what to write",
            hint="use a name that ends in .mp4, .latents.safetensors or .frames",
        )
    return options.out


def _stem(file: Path) -> str:
    """The name of the sample in a file."""
    name = file.name.removesuffix(LATENTS.suffix)
    return name if name != file.name else file.stem


def _open(options: Upsample, before: SampleSpec | None) -> Project:
    """Open the project, or one of the files that were given, for one sample of the video's prompt.

    Raises:
        UserError: there is neither a project nor models, no prompt is known, or something that was asked for is wrong.
    """
    prompt = options.prompt or (before.prompt if before is not None else "")
    if not prompt.strip():
        raise UserError.at(options.file, "does not tell the video's prompt", hint="describe the video with --prompt")
    image = options.image
    if image is None and before is not None and before.image is not None:
        image = options.config.parent / before.image.path
    seed = options.seed if options.seed is not None else before.seed if before is not None else None
    task: Task = "t2v" if image is None else "i2v"
    request = SampleRequest(
        experiment=options.experiment,
        prompts=[prompt],
        seeds=() if seed is None else (seed,),
        loras=options.lora,
        image=image,
        sample={"sr": options.to},
        models=_models(options),
        settings=options.settings,
    )
    overrides = {**options.overrides, "task": task}
    project = open_project(options.config, overrides, request)
    if project.settings.sample.sr == "off":
        project = open_project(options.config, overrides, replace(request, sample={"sr": "auto"}))
    return project


def _models(options: Upsample) -> dict[Role, Path]:
    """The model files that were given, with a transformer: every config names one, though it is not used here."""
    given = options.model_files
    if "sr_dit" in given and not options.config.exists():
        given["dit"] = given["sr_dit"]
    return given


def _roles(project: Project) -> list[Role]:
    """The models that are used."""
    return [*(role for role in roles_of(project.settings.task) if role != "dit"), *ENLARGING_ROLES]


def _plan(
    project: Project, options: Upsample, video: SmallVideo, before: SampleSpec | None, low: JsonObject | None
) -> SampleSpec:
    """Return the sample that enlarges the video.

    Args:
        low: what latents say that they depend on, which then stands for the file, as in the workflow.

    Raises:
        UserError: a model or an image is missing, the image has changed, or the size cannot be used.
    """
    (small,) = project.samples.values()
    if options.image is None and small.image is not None and before is not None and before.image is not None:
        _check_image(small.image, before.image)
    models, chosen = project.models, project.models.super_resolution
    size = enlarged_size(video.height, video.width, chosen.resolution)
    if options.size:
        size = parse_size(options.size)
        try:
            size = check_size(size[0]), check_size(size[1])
        except ValueError as error:
            raise UserError(f"--size {' '.join(options.size)}: {error}", hint="use multiples of 16") from error
    content = "" if low is not None else model_fingerprint(video.path)
    enlarges, sample = Enlarged(chosen.resolution, video.height, video.width, content), project.settings.sample
    spec = plan_enlarged(
        replace(small, name=f"{_stem(video.path)}.sr", frames=video.frames, fps=video.fps),
        chosen,
        {role: models.identity(role) for role in _roles(project)},
        enlarges,
        size,
        steps=sample.sr_steps if options.steps is None else options.steps,
        flow_shift=sample.sr_flow_shift if options.shift is None else options.shift,
    )
    project.save_caches()
    return spec


def _check_image(found: ImageFile, before: ImageFile) -> None:
    """Check that the first image is the one that the small video was made from.

    Raises:
        UserError: it is another.
    """
    if found.fingerprint != before.fingerprint:
        raise UserError.at(
            found.path, "changed since the video was made from it", hint="name the first image with --image"
        )


def _is_made(project: Project, spec: SampleSpec, out: Path, low: JsonObject | None) -> bool:
    """Whether the result is there and says that it was made from the same."""
    text = project.texts.settings_digest
    wanted = spec.denoising(None, text, low) if output_of(out) is LATENTS else spec.decoding(None, text, low)
    return product_made_from(out) == wanted


def _say(project: Project, video: SmallVideo, spec: SampleSpec) -> None:
    """Log what is done, and what differs from the official program."""
    sizes = f"{video.width}x{video.height} to {spec.width}x{spec.height} pixels, {video.frames} frames"
    log.info("super resolution to %s: %s, %d steps", project.models.super_resolution.resolution, sizes, spec.steps)
    if video.change:
        log.warning("note: %s: %s", video.path, video.change)
    for sentence in enlarging_notes(project, spec):
        log.warning("note: %s", sentence)


def _make(
    project: Project,
    video: SmallVideo,
    spec: SampleSpec,
    out: Path,
    before: SampleSpec | None,
    low: JsonObject | None,
) -> None:
    """Encode, enlarge, denoise and decode. The latents are kept until they are decoded, so a stopped run resumes."""
    settings, text = project.settings, project.texts.settings_digest
    folder = Parts(out.parent).folder
    latents = out if output_of(out) is LATENTS else folder / f"{spec.name}{LATENTS.suffix}"
    take_gpu(settings.runtime.device)
    made_from = spec.denoising(None, text, low)
    if product_made_from(latents) != made_from:
        _denoise(project, video, spec, latents, before, made_from)
    if not is_first_rank() or latents == out:
        return
    decoder = loaded_decoder(project, spec)
    decoder.decode(latents, out, spec, made_from=spec.decoding_of(made_from))
    latents.unlink()
    with contextlib.suppress(OSError):  # another run's files are in it
        folder.rmdir()


def _denoise(
    project: Project,
    video: SmallVideo,
    spec: SampleSpec,
    output: Path,
    before: SampleSpec | None,
    made_from: JsonObject,
) -> None:
    """Make the large video's latents and write them."""
    from hv15.models.latents import scale, unscale
    from hv15.precision import pick_device
    from hv15.sample.condition import first_images
    from hv15.sample.files import write_tensors
    from hv15.sample.sampler import loaded_sampler
    from hv15.sample.small_video import small_latents
    from hv15.sample.super_resolution import upsampled

    settings, models = project.settings, project.models
    device, patch_conv = settings.runtime.device, settings.sample.vae_enable_patch_conv
    loras = loras_of(spec, project.root, None)
    metadata = provenance(spec, made_from, loras)  # before a model is loaded: it finds changed LoRAs
    if before is not None:
        metadata[ENLARGED] = before.to_text()
    encoder = text_encoder(project)
    for shard in range(project.texts.shards):
        encoder.run(shard)
    states = project.texts.store.read(caption_key(spec.prompt))
    first, vision = None, None
    if spec.image is not None:
        (encoded,) = first_frame_encoder(project, spec).encode([first_images(spec, project.root)])
        first, vision = encoded["latents"], encoded["vision"]
    small = small_latents(video, models.path("vae"), spec, device=device, patch_conv=patch_conv)
    rows, columns = spec.latent_size[1:]
    low = upsampled(scale(small), rows, columns, models.path("upsampler"), pick_device(device))
    with loaded_sampler(models.path("sr_dit"), settings.sample, spec.dtype, device, super_resolution=True) as sampler:
        latents = sampler.latents(spec, loras, states, None, first, vision, low)
        if sampler.writes:
            write_tensors(output, {"latents": unscale(latents)[0]}, metadata)
