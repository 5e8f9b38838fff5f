"""`hv15 sample --latents`: kept latents files become videos or images. Only the VAE is loaded.

What each result says about itself is what the workflow's would say: how its latents were made, and how it was decoded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hv15.atomic import check_writable
from hv15.choices import ROLES
from hv15.commands.fetched_models import fetch_models
from hv15.commands.logs import log_to_stderr
from hv15.commands.options.sample import Sample
from hv15.config.section import FASTEST, SLOWEST
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.project.metadata import product_made_from
from hv15.project.request import SampleRequest, open_project
from hv15.records.json_values import JsonObject
from hv15.records.outputs import LATENTS, VIDEO, SampleOutput, decoded_outputs
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import read_made_from
from hv15.terminal_text import one_line

_OF_PROMPTS = (
    "prompts",
    "prompts_file",
    "interactive",
    "compare",
    "checkpoint",
    "strength",
    "sheet",
    "lora",
    "include",
    "exclude",
    "lora_blocks",
    "lora_steps",
    "seed",
    "size",
    "frames",
    "steps",
    "guidance",
    "shift",
    "negative",
    "image",
    "sr",
)
"""Options that say what to denoise."""
_OF_DECODING = ("vae_sample_size", "vae_tile_overlap", "vae_seamless_tiles", "vae_dtype")
"""Settings of `sample` that say how to decode."""


def decode_kept(options: Sample) -> None:
    """Decode latents files into the folder of results; what is there already is kept.

    Raises:
        UserError: an option is for prompts only, or a file or the VAE cannot be used; finished results are kept.
    """
    from hv15.sample.decode import SampleDecoder

    if given := [name for name in _OF_PROMPTS if getattr(options, name) not in ((), None, False)]:
        words = "prompts" if given[0] == "prompts" else f"--{given[0].replace('_', '-')}"
        raise UserError(
            f"--latents decodes what was denoised before, so {words} cannot be given",
            hint="leave out one of them: --fps, --output-type, -o, --vae, --project and --set go with --latents",
        )
    means = _means(options)
    log_to_stderr(means.log_level)
    jobs = [*_jobs(options, means)]
    _refuse_equal_names(jobs)
    due = [job for job in jobs if not job.is_done]
    if due:
        check_writable(options.out)
    decoder: SampleDecoder | None = None
    dtype = ""
    for job in due:
        if decoder is None or job.spec.dtype_of_vae != dtype:
            take_gpu(means.device)
            dtype = job.spec.dtype_of_vae
            decoder = SampleDecoder(means.vae, dtype, device=means.device, patch_conv=means.patch_conv)
        decoder.decode(job.latents, job.output, job.spec, made_from=job.made_from, tells=not options.no_metadata)
    for job in jobs:
        known = "" if job in due else ": already there"
        print(f"{one_line(str(job.output))}{known}", file=sys.stderr)


@dataclass(frozen=True)
class _Means:
    """The VAE, and how it is to be used."""

    vae: Path
    identity: str
    """What stands for it in digests."""
    device: str
    patch_conv: bool
    log_level: str
    changes: Mapping[str, object]
    """Settings of the decoding that were asked for, by their names; the others are those of each latents file."""


@dataclass(frozen=True)
class _Job:
    """One file or folder to make."""

    latents: Path
    spec: SampleSpec
    output: Path
    made_from: JsonObject | None
    """None if the latents do not say what they were made from."""
    tells: bool
    """Whether the result says how it was made."""

    @property
    def is_done(self) -> bool:
        """Whether it is there already. Its name does not tell, so what tells nothing is made again."""
        return self.made_from is not None and self.tells and product_made_from(self.output) == self.made_from


def _means(options: Sample) -> _Means:
    """Find the VAE of the project or of the command line.

    Raises:
        UserError: there is neither, or it is missing.
    """
    models = options.model_files
    if options.vae is not None and not options.vae.exists():
        raise UserError(f"--vae {options.vae}: no such file or folder", hint="correct the path")
    if not options.config.exists():
        if "vae" not in models:
            hint = "name a project with --project, or the VAE with --vae"
            raise UserError.at(options.config, "does not exist", hint=hint)
        models = dict.fromkeys(ROLES, models["vae"])  # every config names them all, though only this one is used
    request = SampleRequest(models=models, settings=options.settings, experiment=options.experiment)
    project = open_project(options.config, options.overrides, request)
    if options.vae is None:
        fetch_models(project, ["vae"])
    vae, identity = project.models.path("vae"), project.models.identity("vae")
    sample, runtime, asked = project.settings.sample, project.settings.runtime, project.overrides["sample"]
    changes = {name: getattr(sample, name) for name in _OF_DECODING if isinstance(asked, dict) and name in asked}
    return _Means(vae, identity, runtime.device, sample.vae_enable_patch_conv, runtime.log_level, changes)


def _jobs(options: Sample, means: _Means) -> Iterator[_Job]:
    """Yield what to make of each file.

    Raises:
        UserError: a file is missing, damaged or foreign, or only latents are asked for.
    """
    from hv15.sample.files import read_latents

    if options.fps is not None and not SLOWEST <= options.fps <= FASTEST:
        raise UserError(
            f"--fps {options.fps:g}: expected {SLOWEST:g} to {FASTEST:g} frames per second", hint="for example --fps 24"
        )
    tells = not options.no_metadata
    for path in dict.fromkeys(options.latents):
        _, spec, metadata = read_latents(path)
        spec = replace(spec, models={**spec.models, "vae": means.identity}, fps=options.fps or spec.fps)
        spec = replace(spec, **means.changes)  # type: ignore[arg-type]  # the names and values are those of settings
        latents = read_made_from(metadata)
        made_from = None if latents is None else spec.decoding_of(latents)
        name = path.name.removesuffix(LATENTS.suffix).removesuffix(".safetensors")
        for output in _outputs(options, spec):
            yield _Job(path, spec, options.out / f"{name}{output.suffix}", made_from, tells)


def _outputs(options: Sample, spec: SampleSpec) -> list[SampleOutput]:
    """What is asked for, or else what the sample was to be; a video, if only its latents were."""
    decoded = decoded_outputs(options.output_type or spec.output_type)
    if not decoded and options.output_type is not None:
        raise UserError(
            f"--output-type {options.output_type}: the latents are there already",
            hint="ask for video, images or animation",
        )
    return decoded or [VIDEO]


def _refuse_equal_names(jobs: Sequence[_Job]) -> None:
    seen: dict[Path, Path] = {}
    for job in jobs:
        first = seen.setdefault(job.output, job.latents)
        if first != job.latents:
            raise UserError(
                f"{first} and {job.latents} would both become {job.output}",
                hint="decode them one after the other, each into a folder of its own (-o)",
            )
