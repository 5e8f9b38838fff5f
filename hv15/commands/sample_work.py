"""The parts of samples: first images, latents, what is decoded. Any number of each, with each model loaded once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.commands.notes import denoising_notes, enlarging_notes, log_notes
from hv15.data.captions import caption_key
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.models.facts import describe
from hv15.out_of_memory import StageName, memory_advice
from hv15.project import Project
from hv15.project.metadata import product_metadata
from hv15.records.json_values import JsonObject
from hv15.records.metadata import ENLARGED, SAMPLE
from hv15.sample.guidance_batch import made_by
from hv15.sample.loras import loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance, read_made_from

if TYPE_CHECKING:
    from torch import Tensor

    from hv15.lora.weighted import WeightedLoRA
    from hv15.sample.condition import FirstFrameEncoder
    from hv15.sample.decode import SampleDecoder
    from hv15.sample.running import RunningPreviews
    from hv15.sample.sampler import Sampler

log = logging.getLogger(__name__)

Failed = Callable[[Path, UserError], None]
"""Gets the file that cannot be made, and why; the others are made. Without it, the first error ends the work."""


@dataclass(frozen=True)
class ImageWork:
    """A first image to encode."""

    spec: SampleSpec
    made_from: JsonObject
    """What the file depends on, from the stage's spec."""
    out: Path


@dataclass(frozen=True)
class LatentsWork:
    """A sample to denoise."""

    spec: SampleSpec
    made_from: JsonObject
    out: Path
    lora: Path | None = None
    """The trained LoRA; None samples without it."""
    condition: Path | None = None
    """The encoded first image, for i2v."""
    shown: Path | None = None
    """The folder of its previews while it is denoised; None: that of `out`."""
    low: Path | None = None
    """For super resolution: the latents of the sample that it makes larger."""


@dataclass(frozen=True)
class DecodingWork:
    """Latents to decode."""

    spec: SampleSpec
    made_from: JsonObject
    out: Path
    latents: Path
    tells: bool = True
    """Whether the result says how it was made."""


def check_machine(project: Project) -> None:
    """Take a GPU, and check that it can compute as `sample:` asks, before a model is loaded or fetched.

    Raises:
        UserError: a package is missing, or the device cannot.
    """
    from hv15.models.ready import check_kernels
    from hv15.precision import pick_device, pick_dtype

    sample, name = project.settings.sample, project.settings.runtime.device
    take_gpu(name)
    device = pick_device(name)
    check_kernels(sample, device, pick_dtype(sample.dtype, device))


def check_later_models(project: Project) -> None:
    """Check, from their headers alone, the models that are loaded when long work is done: the VAE, super resolution's.

    Raises:
        UserError: a file is damaged, or is not that model.
    """
    from hv15.models import load_dit, load_vae
    from hv15.models.upsampler_files import load_upsampler

    models = project.models
    load_vae(models.path("vae"), device="meta")
    if "sr_dit" in project.settings.roles:
        load_dit(models.path("sr_dit"), device="meta", super_resolution=True)
        load_upsampler(models.path("upsampler"), device="meta")


def encode_images(project: Project, works: Iterable[ImageWork], failed: Failed | None = None) -> None:
    """Encode first images. The VAE and the image encoder are loaded once, one after the other.

    Raises:
        UserError: a model cannot be used; or an image, if nothing is told of it by `failed`.
    """
    from hv15.sample.condition import first_images
    from hv15.sample.files import write_tensors

    frames = []
    for work in works:
        with _told(work.out, failed):
            frames.append((work, first_images(work.spec, project.root)))
    if not frames:
        return
    take_gpu(project.settings.runtime.device)
    encoder = first_frame_encoder(project, frames[0][0].spec)
    for (work, _), tensors in zip(frames, encoder.encode([frame for _, frame in frames]), strict=True):
        write_tensors(work.out, tensors, provenance(work.spec, work.made_from, ()))


def denoise(project: Project, works: Iterable[LatentsWork], failed: Failed | None = None) -> None:
    """Denoise samples and write their latents. The transformer is loaded once.

    Raises:
        UserError: the transformer cannot be used; or what a sample needs, if nothing is told of it by `failed`.
    """
    from hv15.commands.running_previews import running_previews
    from hv15.plan.guidance import batch_need
    from hv15.sample.sampler import loaded_sampler, with_spec

    ready, notes = list[ReadySample](), list[str]()
    for work in works:
        with _told(work.out, failed):
            ready.append(prepared(project, work))  # before a model is loaded, as it finds changed LoRAs
            used = [project.root / lora.path for lora in work.spec.loras if lora.multiplier]
            notes += denoising_notes(project, [work.spec], used)
    if not ready:
        return
    log_notes(log, project, notes)
    settings, first = project.settings, ready[0].work.spec
    take_gpu(settings.runtime.device)
    section = with_spec(settings.sample, first)
    dit, device, need = project.models.path("dit"), settings.runtime.device, batch_need(settings)
    previews = running_previews(project)
    with loaded_sampler(dit, section, first.dtype, device, need=need) as sampler:
        for each in ready:
            with _told(each.work.out, failed), memory_advice("denoise"):
                write_latents(project, sampler, each, previews)


def enlarge(project: Project, works: Iterable[LatentsWork], failed: Failed | None = None) -> None:
    """Make samples larger by super resolution and write their latents.

    The latent upsampler is loaded once, then the transformer.

    Raises:
        UserError: a model cannot be used; or what a sample needs, if nothing is told of it by `failed`.
    """
    from hv15.commands.running_previews import running_previews
    from hv15.precision import pick_device
    from hv15.sample.sampler import loaded_sampler, with_spec
    from hv15.sample.super_resolution import LatentEnlarger, small_sample

    settings, models, small = project.settings, project.models, []
    for work in works:
        with _told(work.out, failed):
            small.append((prepared(project, work), small_sample(work.spec, work.low)))
    if not small:
        return
    transformer, device = models.path("sr_dit"), settings.runtime.device
    log.info("%s: %s", transformer, describe(transformer))
    for sentence in dict.fromkeys(note for each, _ in small for note in enlarging_notes(project, each.work.spec)):
        log.warning("note: %s", sentence)
    take_gpu(device)
    enlarger, ready = LatentEnlarger(models.path("upsampler"), pick_device(device)), []
    for each, (latents, before) in small:
        with _told(each.work.out, failed), memory_advice("upsample"):
            large = enlarger(latents, *each.work.spec.latent_size[1:])
            ready.append((replace(each, metadata=each.metadata | {ENLARGED: before.to_text()}), large))
    del enlarger
    previews, first = running_previews(project), small[0][0].work.spec
    section = with_spec(settings.sample, first)
    with loaded_sampler(transformer, section, first.dtype, device, super_resolution=True) as sampler:
        for each, large in ready:
            with _told(each.work.out, failed), memory_advice("upsample"):
                write_latents(project, sampler, each, previews, large)


def decode(project: Project, works: Sequence[DecodingWork], failed: Failed | None = None) -> None:
    """Decode latents and write videos or images. The VAE is loaded once.

    Raises:
        UserError: the VAE cannot be used; or what is to be decoded, if nothing is told of it by `failed`.
    """
    if not works:
        return
    take_gpu(project.settings.runtime.device)
    gc.collect()  # what is left of a transformer may hold itself in memory
    vae = loaded_decoder(project, works[0].spec)
    for work in works:
        if work.out.exists() and not work.latents.exists():
            continue  # another command has made it meanwhile, and removed what it was made from
        with _told(work.out, failed), memory_advice(decoding_stage(work.spec)):
            vae.decode(work.latents, work.out, work.spec, made_from=work.made_from, tells=work.tells)


def decoding_stage(spec: SampleSpec) -> StageName:
    """The stage of a plan of memory that decodes a sample."""
    return "decode" if spec.enlarges is None else "decode large"


def first_frame_encoder(project: Project, spec: SampleSpec) -> FirstFrameEncoder:
    """Return what encodes the first images of samples such as this one; it loads its models when it encodes."""
    from hv15.sample.condition import FirstFrameEncoder

    settings, models = project.settings, project.models
    return FirstFrameEncoder(
        models.path("vae"),
        models.path("image_encoder"),
        spec,
        device=settings.runtime.device,
        patch_conv=settings.sample.vae_enable_patch_conv,
    )


def loaded_decoder(project: Project, spec: SampleSpec) -> SampleDecoder:
    """Load the VAE for samples such as this one.

    Raises:
        UserError: it cannot be loaded.
    """
    from hv15.sample.decode import SampleDecoder

    settings = project.settings
    return SampleDecoder(
        project.models.path("vae"),
        spec.dtype_of_vae,
        device=settings.runtime.device,
        patch_conv=settings.sample.vae_enable_patch_conv,
    )


@dataclass(frozen=True)
class ReadySample:
    """A sample to denoise, with its LoRAs and what its file will say about itself."""

    work: LatentsWork
    loras: list[WeightedLoRA]
    metadata: dict[str, str]


def prepared(project: Project, work: LatentsWork) -> ReadySample:
    """Return a sample that is ready to be denoised.

    Raises:
        UserError: a LoRA is missing or has changed.
    """
    loras = loras_of(work.spec, project.root, work.lora)
    return ReadySample(work, loras, provenance(work.spec, work.made_from, loras))


def write_latents(
    project: Project,
    sampler: Sampler,
    ready: ReadySample,
    previews: RunningPreviews | None = None,
    low: Tensor | None = None,
) -> None:
    """Denoise a sample and write its latents.

    Args:
        previews: show what it becomes meanwhile.
        low: [1, C, F', h, w], see `Sampler.latents`.

    Raises:
        UserError: something that it needs is missing or cannot be used, or the file cannot be written.
    """
    from hv15.sample.sampling import read_condition

    work, spec, store = ready.work, ready.work.spec, project.texts.store
    text = store.read(caption_key(spec.prompt))
    negative = store.read(caption_key(spec.negative_prompt)) if spec.guided else None
    condition = read_condition(spec, work.condition)
    with nullcontext() if previews is None else previews.of(spec, work.shown or work.out.parent) as watcher:
        sampler.write(work.out, spec, ready.loras, text, negative, *condition, ready.metadata, low=low, watcher=watcher)


@contextmanager
def _told(out: Path, failed: Failed | None) -> Iterator[None]:
    """Tell of an error instead of raising it, if there is anybody to tell."""
    try:
        yield
    except UserError as error:
        if failed is None:
            raise
        failed(out, error)


def is_made(file: Path, spec: SampleSpec, made_from: JsonObject) -> bool:
    """Whether a file of a sample is whole and says that it is this sample and was made from the same."""
    try:
        metadata = product_metadata(file)
    except (OSError, UserError):
        return False
    texts = {each.to_text() for each in made_by(spec)}
    return read_made_from(metadata) == made_from and metadata.get(SAMPLE) in texts
