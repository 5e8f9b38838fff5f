"""`hv15 sample`: videos of prompts in one command. Each model is loaded once, and only if something needs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hv15.atomic import TORN, check_writable, remove_torn
from hv15.commands.encode import text_encoder
from hv15.commands.fetched_models import fetch_models
from hv15.commands.logs import log_to_stderr
from hv15.commands.options.reach import reach_settings
from hv15.commands.options.sample import Sample
from hv15.commands.options.seeds import agreed_seeds
from hv15.commands.sample_sheets import check_viewable, draw_sheets
from hv15.commands.sample_work import (
    DecodingWork,
    ImageWork,
    LatentsWork,
    check_later_models,
    check_machine,
    decode,
    denoise,
    encode_images,
    enlarge,
)
from hv15.digest import short
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.comparison import Compared, enlarged_samples, make_table
from hv15.project.metadata import is_anonymous, product_made_from
from hv15.project.request import SampleRequest, open_project
from hv15.ranks import is_first_rank, run_on_ranks
from hv15.records.json_values import JsonObject
from hv15.records.outputs import LATENTS, OUTPUT_TYPES, SampleOutput, decoded_outputs
from hv15.sample.loras import check_reaches, loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.resolutions import parse_size
from hv15.terminal_text import one_line


def sample(options: Sample) -> int | None:
    """Make the videos that are not there yet; return an exit code if other processes did it.

    Raises:
        UserError: something that was asked for, or a model, cannot be used; finished videos are kept.
    """
    if options.latents:
        from hv15.commands.kept_latents import decode_kept

        decode_kept(options)
        return None
    options = replace(options, seed=agreed_seeds(options.seed))
    if options.interactive:
        from hv15.commands.interactive import interact

        return interact(options, _without_enlarging(sample_request(options)))
    if not options.prompts and options.prompts_file is None:
        raise UserError(
            "no prompt is given",
            hint="write prompts right behind `hv15 sample`, because an option such as --lora takes all words up to the "
            "next one; or name a file by --prompts-file or --latents",
        )
    request = sample_request(options)
    if request.reach and not request.loras:
        raise UserError(
            "patterns and factors say where LoRAs act, but there is no --lora",
            hint="name a LoRA with --lora, or leave out --include, --exclude, --lora-blocks and --lora-steps",
        )
    project = open_project(options.config, options.overrides, request)
    settings = project.settings
    log_to_stderr(settings.runtime.log_level)
    compared = Compared(options.compare, options.checkpoint, options.strength)
    table, draws = make_table(project, compared), options.sheet or compared.is_table
    if draws:
        check_viewable(table)
    specs, tells = table.samples(), not options.no_metadata
    larger = enlarged_samples(project, table)
    due = [spec for spec in specs if not is_made(project, spec, options.out, tells=tells)]
    due_large = [
        Enlargement(small, larger[small.name])
        for small in specs
        if small.name in larger and not is_made(project, larger[small.name], options.out, tells=tells, enlarges=small)
    ]
    if due_large and settings.sample.context_parallel > 1:  # two transformers one after the other, each on all ranks
        raise UserError(
            f"{settings.sample.asks_for_gpus}, and the samples are to be made larger, too",
            hint="first use --sr off --output-type both, then `hv15 upsample` on the latents",
        )
    if due or due_large:
        every = (*due, *(each.large for each in due_large))
        check_reaches(lora for spec in every for lora in loras_of(spec, project.root, None))
        code = run_on_ranks(settings.sample.context_parallel, settings.runtime.device, settings.sample.asks_for_gpus)
        if code is not None:
            return code
        check_machine(project)
        check_writable(options.out)
        fetch_models(project)
        check_later_models(project)
        _make(project, due, due_large, options.out, tells=tells)
    if is_first_rank():
        made = [*due, *(each.large for each in due_large)]
        for spec in (each for small in specs for each in (small, larger.get(small.name)) if each is not None):
            known = "" if spec in made else ": already there"
            for file in files_of(spec, options.out):
                print(f"{one_line(str(file))}{known}", file=sys.stderr)
        if draws:
            shown = partial(_shown, options.out)
            for file in draw_sheets(project, table, options.out, shown, tells=tells):
                print(one_line(str(file)), file=sys.stderr)
    return None


def sample_request(options: Sample) -> SampleRequest:
    """Read the options.

    Raises:
        UserError: the size cannot be read.
    """
    return SampleRequest(
        experiment=options.experiment,
        prompts=options.prompts,
        seeds=options.seed,
        loras=options.lora,
        reach=reach_settings(options.include, options.exclude, options.lora_blocks, options.lora_steps),
        image=options.image,
        prompts_file=options.prompts_file,
        sample={
            "video_size": list(parse_size(options.size)) if options.size else None,
            "video_length": options.frames,
            "infer_steps": options.steps,
            "guidance_scale": options.guidance,
            "flow_shift": options.shift,
            "negative_prompt": options.negative,
            "fps": options.fps,
            "output_type": options.output_type,
            "sr": options.sr,
        },
        models=options.model_files,
        settings=options.settings,
    )


def _without_enlarging(request: SampleRequest) -> SampleRequest:
    """Return a request of samples that stay small.

    Raises:
        UserError: larger ones are asked for.
    """
    if request.sample["sr"] not in (None, "off"):
        raise UserError(
            f"--sr {request.sample['sr']}: one prompt after the other is sampled without super resolution",
            hint="leave out --sr, and use `hv15 upsample FILE` for those that you want to keep",
        )
    return replace(request, sample={**request.sample, "sr": "off"})


def files_of(spec: SampleSpec, out: Path) -> list[Path]:
    """The files of a sample in the output folder."""
    return [file_of(spec, output, out) for output in OUTPUT_TYPES[spec.output_type]]


def _shown(out: Path, spec: SampleSpec) -> Path:
    return files_of(spec, out)[0]


def file_of(spec: SampleSpec, output: SampleOutput, out: Path) -> Path:
    return out / f"{spec.name}{output.suffix}"


def is_made(
    project: Project, spec: SampleSpec, out: Path, *, tells: bool = True, enlarges: SampleSpec | None = None
) -> bool:
    """Whether all files of a sample are there and say that they were made from the same.

    Args:
        enlarges: the small sample, if this is one of super resolution.
        tells: whether videos and images are to say it. If not, one that says nothing is what its name says, which ends
            in a digest of all that it depends on.
    """
    text = project.texts.settings_digest
    low = None if enlarges is None else enlarges.denoising(None, text)
    denoised, decoded = spec.denoising(None, text, low), spec.decoding(None, text, low)
    return all(
        is_anonymous(file_of(spec, output, out))
        if output.is_decoded and not tells
        else product_made_from(file_of(spec, output, out)) == (decoded if output.is_decoded else denoised)
        for output in OUTPUT_TYPES[spec.output_type]
    )


@dataclass(frozen=True)
class Enlargement:
    """A sample that super resolution makes of a smaller one."""

    small: SampleSpec
    large: SampleSpec

    def latents_from(self, text: str) -> JsonObject:
        """What its latents depend on; `text` is the digest of the prompts' encoding."""
        return self.large.denoising(None, text, self.small.denoising(None, text))

    def made_from(self, text: str) -> JsonObject:
        """What its pixels depend on."""
        return self.large.decoding_of(self.latents_from(text))


def _make(
    project: Project, specs: Sequence[SampleSpec], larger: Sequence[Enlargement], out: Path, *, tells: bool
) -> None:
    """Encode, denoise and decode. What is not asked for is kept until all is decoded, so that a stopped run resumes.

    Args:
        specs: the samples to make.
        larger: those of super resolution. Latents of small ones that were not kept are made again.

    Raises:
        UserError: a model, an image or a LoRA cannot be used, or a file cannot be written.
    """
    parts, text = Parts(out), project.texts.settings_digest
    with parts.in_use() if is_first_rank() else nullcontext(lambda: False) as is_alone:
        due = [each for each in larger if product_made_from(parts.latents(each.large)) != each.latents_from(text)]
        denoised = [*{spec.name: spec for spec in (*specs, *(each.small for each in due))}.values()]
        _encode_texts(project)
        encode_first_images(project, [*denoised, *(each.large for each in due)], parts)
        _denoise(project, denoised, parts)
        enlarge(project, [_enlarging(each, parts, text) for each in due])
        if is_first_rank():
            _decode(project, specs, parts, tells=tells)
            decode(project, [*_decodings(larger, parts, text, tells=tells)])
            every, alone = [*denoised, *(each.large for each in larger)], is_alone()
            parts.remove(every, keep_images=not alone)
            if alone:
                parts.remove_torn(file for spec in every for file in files_of(spec, out))


def _decodings(larger: Iterable[Enlargement], parts: Parts, text: str, *, tells: bool) -> Iterator[DecodingWork]:
    for each in larger:
        latents, made_from = parts.latents(each.large), each.made_from(text)
        for output in decoded_outputs(each.large.output_type):
            yield DecodingWork(each.large, made_from, file_of(each.large, output, parts.out), latents, tells=tells)


def _enlarging(wanted: Enlargement, parts: Parts, text: str) -> LatentsWork:
    large = wanted.large
    return LatentsWork(
        large,
        wanted.latents_from(text),
        parts.latents(large),
        condition=parts.condition(large),
        shown=parts.out,
        low=parts.latents(wanted.small),
    )


@dataclass(frozen=True)
class Parts:
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
        return file_of(spec, LATENTS, self.out if kept else self.folder)

    @contextmanager
    def in_use(self) -> Iterator[Callable[[], bool]]:
        """Tell other commands with the same results that the folder is used.

        Yields a function, for the end of the use, that returns whether no other command uses it.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.out, os.O_RDONLY)
        try:
            _lock(descriptor, fcntl.LOCK_SH)
            yield lambda: _lock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
            self._remove_folder()

    def remove(self, specs: Iterable[SampleSpec], *, keep_images: bool = False) -> None:
        """Remove those of finished samples.

        Args:
            keep_images: whether encoded first images stay, for other samples or another command.
        """
        for spec in specs:
            for file in (None if keep_images else self.condition(spec), self.latents(spec)):
                if file is not None and file.parent == self.folder:
                    file.unlink(missing_ok=True)
        self._remove_folder()

    def remove_torn(self, files: Iterable[Path]) -> None:
        """Remove what killed commands left half written of results and parts. No other command may use the folder."""
        for file in files:
            remove_torn(file)
        for file in self.folder.glob(TORN):
            file.unlink(missing_ok=True)
        self._remove_folder()

    def _remove_folder(self) -> None:
        with contextlib.suppress(OSError):  # parts are in it, or it is not there
            self.folder.rmdir()


def _lock(descriptor: int, kind: int) -> bool:
    """Lock an open folder without waiting; return False if others' locks forbid it. Not every file system has locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_denoised(project: Project, spec: SampleSpec, parts: Parts) -> bool:
    return product_made_from(parts.latents(spec)) == spec.denoising(None, project.texts.settings_digest)


def _encode_texts(project: Project) -> None:
    encoder = text_encoder(project)
    for shard in range(project.texts.shards):
        encoder.run(shard)


def encode_first_images(project: Project, specs: Iterable[SampleSpec], parts: Parts) -> None:
    """Encode the first images that are not encoded yet, with one load of each model."""
    files = {file: spec for spec in specs if (file := parts.condition(spec)) is not None}
    due = {file: spec for file, spec in files.items() if product_made_from(file) != spec.conditioning()}
    encode_images(project, [ImageWork(spec, spec.conditioning(), file) for file, spec in due.items()])


def _denoise(project: Project, specs: Iterable[SampleSpec], parts: Parts) -> None:
    """Denoise the samples that have no latents yet, with one load of the transformer."""
    text, due = project.texts.settings_digest, [spec for spec in specs if not is_denoised(project, spec, parts)]
    works = [
        LatentsWork(
            spec, spec.denoising(None, text), parts.latents(spec), condition=parts.condition(spec), shown=parts.out
        )
        for spec in due
    ]
    denoise(project, works)


def _decode(project: Project, specs: Iterable[SampleSpec], parts: Parts, *, tells: bool) -> None:
    """Decode all samples with one load of the VAE."""
    text = project.texts.settings_digest
    works = [
        DecodingWork(
            spec, spec.decoding(None, text), file_of(spec, output, parts.out), parts.latents(spec), tells=tells
        )
        for spec in specs
        for output in decoded_outputs(spec.output_type)
    ]
    decode(project, works)
