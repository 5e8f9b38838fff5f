"""`hv15 sample`: videos of prompts in one command. Each model is loaded once, and only if something needs it."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.choices import Role
from hv15.commands.encode import text_encoder
from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import denoising_notes, log_notes
from hv15.commands.options.stages import Sample
from hv15.data.captions import caption_key
from hv15.digest import short
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.project import Project
from hv15.project.metadata import product_metadata
from hv15.project.request import SampleRequest, named_samples, open_project
from hv15.ranks import is_first_rank, run_on_ranks
from hv15.records.json_values import JsonObject
from hv15.records.outputs import LATENTS, OUTPUT_TYPES, SampleOutput
from hv15.sample.loras import loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import read_made_from
from hv15.sample.resolutions import parse_size
from hv15.terminal_text import one_line

log = logging.getLogger(__name__)


def sample(options: Sample) -> int | None:
    """Make the videos that are not there yet; return an exit code if other processes did it.

    Raises:
        UserError: something that was asked for, or a model, cannot be used; finished videos are kept.
    """
    project = open_project(options.config, options.overrides, _request(options))
    settings = project.settings
    log_to_stderr(settings.runtime.log_level)
    specs = list(named_samples(project))
    due = [spec for spec in specs if not _is_made(project, spec, options.out)]
    if due:
        code = run_on_ranks(settings.sample.context_parallel, settings.runtime.device, settings.sample.asks_for_gpus)
        if code is not None:
            return code
        _fetch_models(project)
        _make(project, due, options.out)
    if is_first_rank():
        for spec in specs:
            known = "" if spec in due else ": already there"
            for file in _files(spec, options.out):
                print(f"{one_line(str(file))}{known}", file=sys.stderr)
    return None


def _request(options: Sample) -> SampleRequest:
    """Read the options.

    Raises:
        UserError: the size cannot be read.
    """
    files: dict[Role, Path | None] = {
        "dit": options.dit,
        "vae": options.vae,
        "text_encoder": options.text_encoder,
        "tokenizer": options.tokenizer,
        "glyph_encoder": options.glyph_encoder,
        "image_encoder": options.image_encoder,
    }
    return SampleRequest(
        prompts=options.prompts,
        seeds=options.seed,
        loras=options.lora,
        image=options.image,
        sample={
            "video_size": list(parse_size(options.size)) if options.size else None,
            "video_length": options.frames,
            "infer_steps": options.steps,
            "guidance_scale": options.guidance,
            "flow_shift": options.shift,
            "negative_prompt": options.negative,
            "fps": options.fps,
            "output_type": options.output_type,
        },
        models={role: path for role, path in files.items() if path is not None},
        settings=options.settings,
    )


def _files(spec: SampleSpec, out: Path) -> list[Path]:
    """The files of a sample in the output folder."""
    return [_file(spec, output, out) for output in OUTPUT_TYPES[spec.output_type]]


def _file(spec: SampleSpec, output: SampleOutput, out: Path) -> Path:
    return out / f"{spec.name}{output.suffix}"


def _is_made(project: Project, spec: SampleSpec, out: Path) -> bool:
    """Whether all files of a sample are there and say that they were made from the same."""
    text = project.texts.settings_digest
    denoised, decoded = spec.denoising(None, text), spec.decoding(None, text)
    return all(
        _made_from(_file(spec, output, out)) == (decoded if output.is_decoded else denoised)
        for output in OUTPUT_TYPES[spec.output_type]
    )


def _fetch_models(project: Project) -> None:
    """Copy or download the models that the workflow would bring, and check that all are there.

    Raises:
        UserError: a file is missing, or cannot be downloaded.
    """
    from hv15.demo.layout import copy_base, demo_is_copied
    from hv15.models.hub import download

    models = project.settings.models
    folder = project.settings.resolve(models.directory)
    if models.source == "demo" and not demo_is_copied(folder):
        copy_base(folder)
    if models.source == "hub":
        download(project.settings)
    project.models.check()


def _make(project: Project, specs: Sequence[SampleSpec], out: Path) -> None:
    """Encode, denoise and decode. What is not asked for is kept until all is decoded, so that a stopped run resumes.

    Raises:
        UserError: a model, an image or a LoRA cannot be used, or a file cannot be written.
    """
    parts = _Parts(out)
    _encode_texts(project)
    _encode_images(project, specs, parts)
    _denoise(project, [spec for spec in specs if not _is_denoised(project, spec, parts)], parts)
    if is_first_rank():
        _decode(project, specs, parts)
        parts.remove(specs)


@dataclass(frozen=True)
class _Parts:
    """The files between the steps."""

    out: Path
    """The folder of the results."""

    @property
    def folder(self) -> Path:
        return self.out / ".unfinished"

    def condition(self, spec: SampleSpec) -> Path | None:
        """The encoded first image, which samples of one image and size share; None for text-to-video."""
        if spec.image is None:
            return None
        return self.folder / f"{spec.image.fingerprint}-{short(spec.conditioning())}.condition.safetensors"

    def latents(self, spec: SampleSpec) -> Path:
        kept = LATENTS in OUTPUT_TYPES[spec.output_type]
        return _file(spec, LATENTS, self.out if kept else self.folder)

    def remove(self, specs: Iterable[SampleSpec]) -> None:
        """Remove those of finished samples."""
        for spec in specs:
            for file in (self.condition(spec), self.latents(spec)):
                if file is not None and file.parent == self.folder:
                    file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run's files are in it
            self.folder.rmdir()


def _is_denoised(project: Project, spec: SampleSpec, parts: _Parts) -> bool:
    return _made_from(parts.latents(spec)) == spec.denoising(None, project.texts.settings_digest)


def _made_from(file: Path) -> JsonObject | None:
    """What a file says that it was made from; None if it is missing or torn."""
    try:
        return read_made_from(product_metadata(file))
    except (UserError, OSError):
        return None


def _encode_texts(project: Project) -> None:
    encoder = text_encoder(project)
    for shard in range(project.texts.shards):
        encoder.run(shard)


def _encode_images(project: Project, specs: Iterable[SampleSpec], parts: _Parts) -> None:
    from hv15.sample.condition import write_condition

    device = project.settings.runtime.device
    for spec in specs:
        file = parts.condition(spec)
        if file is not None and _made_from(file) != spec.conditioning():
            take_gpu(device)
            write_condition(
                spec,
                project.root,
                project.models.path("vae"),
                project.models.path("image_encoder"),
                file,
                made_from=spec.conditioning(),
                device=device,
                patch_conv=project.settings.sample.vae_enable_patch_conv,
            )


def _denoise(project: Project, specs: Sequence[SampleSpec], parts: _Parts) -> None:
    """Denoise all samples with one load of the transformer, and write their latents."""
    from hv15.commands.running import running_previews
    from hv15.models.latents import unscale
    from hv15.sample.files import write_tensors
    from hv15.sample.provenance import provenance
    from hv15.sample.sampler import loaded_sampler
    from hv15.sample.sampling import read_condition

    if not specs:
        return
    settings, first = project.settings, specs[0]
    store, text = project.texts.store, project.texts.settings_digest
    used = [lora.path for lora in loras_of(first, project.root, None)]
    log_notes(log, project, denoising_notes(project, specs, used))
    take_gpu(settings.runtime.device)
    previews = running_previews(project)
    with loaded_sampler(project.models.path("dit"), settings.sample, first.dtype, settings.runtime.device) as sampler:
        for spec in specs:
            loras = loras_of(spec, project.root, None)
            metadata = provenance(spec, spec.denoising(None, text), loras)
            states = store.read(caption_key(spec.prompt))
            negative = store.read(caption_key(spec.negative_prompt)) if spec.guided else None
            condition = read_condition(spec, parts.condition(spec))
            with previews.of(spec, parts.out) as watcher:
                latents = sampler.latents(spec, loras, states, negative, *condition, watcher=watcher)
            if sampler.writes:
                write_tensors(parts.latents(spec), {"latents": unscale(latents)[0]}, metadata)


def _decode(project: Project, specs: Sequence[SampleSpec], parts: _Parts) -> None:
    """Decode all samples with one load of the VAE."""
    from hv15.sample.decode import SampleDecoder

    settings, text = project.settings, project.texts.settings_digest
    decoded = [(spec, output) for spec in specs for output in OUTPUT_TYPES[spec.output_type] if output.is_decoded]
    if not decoded:
        return
    vae = SampleDecoder(
        project.models.path("vae"),
        decoded[0][0].dtype,
        device=settings.runtime.device,
        patch_conv=settings.sample.vae_enable_patch_conv,
    )
    for spec, output in decoded:
        file = _file(spec, output, parts.out)
        vae.decode(parts.latents(spec), file, spec, made_from=spec.decoding(None, text))
