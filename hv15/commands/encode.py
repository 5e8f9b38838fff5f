"""`hv15 encode` and `hv15 report`: fill the store, shard by shard, and say what was left out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from hv15.cache.encoding import Encoding, describe
from hv15.cache.register import register
from hv15.commands.dataset_notes import dataset_notes, media_notes
from hv15.commands.listing import listing
from hv15.commands.logs import log_to_stderr
from hv15.commands.options.stages import Encode, EncodeLatents, EncodeMasks, EncodeTexts, Report
from hv15.data.survey import counted
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.project import Project
from hv15.records.manifest import Manifest
from hv15.records.spec import Spec
from hv15.terminal_text import one_line

if TYPE_CHECKING:
    from hv15.cache.texts import TextStateEncoder

Needed = TypeVar("Needed")


class FileEncoder(Protocol):
    """What encodes files (`hv15.cache.latents.LatentEncoder`, `hv15.cache.masks.MaskEncoder`)."""

    @property
    def encoding(self) -> Encoding[object]: ...

    @property
    def encoded(self) -> int: ...

    @property
    def kept(self) -> int: ...

    @property
    def failures(self) -> Mapping[str, str]: ...

    def run(self, shard: int) -> Manifest: ...


def latents(options: EncodeLatents) -> None:
    """Encode the clips of one shard, or of all.

    Raises:
        UserError: files cannot be used; all others are encoded and kept.
    """
    from hv15.cache.latents import LatentEncoder
    from hv15.models import load_image_encoder, load_vae
    from hv15.precision import pick_device, pick_encoder_dtype, storage_dtype

    project = _open(options)
    cache = project.settings.cache
    take_gpu(project.settings.runtime.device)
    device = pick_device(project.settings.runtime.device)
    dtype = pick_encoder_dtype(cache.dtype, device)
    i2v = project.settings.task == "i2v"
    encoder = LatentEncoder(
        project.latents,
        project.dataset.probed.info,
        load_vae=lambda: load_vae(
            project.models.path("vae"), dtype=dtype, device=str(device), patch_conv=cache.vae_enable_patch_conv
        ),
        load_vision=(
            (lambda: load_image_encoder(project.models.path("image_encoder"), dtype=dtype, device=str(device)))
            if i2v
            else None
        ),
        tile_size=cache.vae_sample_size,
        overlap=cache.vae_tile_overlap,
        dtype=storage_dtype(cache.latent_dtype),
        batch_size=cache.latent_batch,
        workers=cache.workers,
    )
    _run(project, encoder, options, "clips")


def masks(options: EncodeMasks) -> None:
    """Make the masks of one shard, or of all.

    Raises:
        UserError: files cannot be used; all others are encoded and kept.
    """
    from hv15.cache.masks import MaskEncoder

    project = _open(options)
    encoder = MaskEncoder(project.masks, project.dataset.probed.info, project.settings.cache.workers)
    _run(project, encoder, options, "masks")


def _run(project: Project, encoder: FileEncoder, options: Encode, what: str) -> None:
    """Encode files, shard by shard.

    Raises:
        UserError: files cannot be used; all others are encoded and kept.
    """
    stop, encoding = project.settings.cache.bad_clips == "stop", encoder.encoding
    for shard in _shards(encoding, options):
        manifest = encoder.run(shard)
        complete = not any("skipped" in manifest.entries[key] for key in encoding.by_shard[shard])
        if complete or not stop:
            _save(encoding, shard, manifest, options.out)
    project.dataset.probed.save()
    if stop and encoder.failures:
        raise UserError(
            f"{counted(len(encoder.failures), 'file')} cannot be used; "
            f"all others{_of_shard(options)} are encoded and kept",
            lines=listing(encoder.failures.values()).split("\n"),
            hint="repair or remove the listed files, or set cache.bad_clips to skip; then run the same command again",
        )
    print(f"{what}: {encoder.encoded} encoded, {encoder.kept} already there", file=sys.stderr)
    if encoder.failures:
        print(
            f"left out {counted(len(encoder.failures), 'file')}:\n{listing(encoder.failures.values())}", file=sys.stderr
        )


def texts(options: EncodeTexts) -> None:
    """Encode the captions and prompts of one shard, or of all.

    Raises:
        UserError: a model cannot be used, or the dataset or the config changed since the encoding was planned.
    """
    project = _open(options)
    encoder = text_encoder(project)
    for shard in _shards(project.texts, options):
        _save(project.texts, shard, encoder.run(shard), options.out)
    print(f"texts: {encoder.encoded} encoded, {encoder.kept} already there", file=sys.stderr)


def text_encoder(project: Project) -> TextStateEncoder:
    """Return what encodes a project's captions and prompts. It loads a model when there is something to encode.

    Raises:
        UserError: there is no GPU as the settings ask, or a model cannot be used.
    """
    from hv15.cache.texts import TextStateEncoder
    from hv15.models import load_glyph_encoder, load_text_encoder
    from hv15.models.glyphs import glyph_width
    from hv15.precision import pick_encoder_dtype, pick_text_device, storage_dtype

    cache, models = project.settings.cache, project.models
    if not cache.text_encoder_cpu:
        take_gpu(project.settings.runtime.device)
    device = pick_text_device(cache, project.settings.runtime.device)
    dtype = pick_encoder_dtype(cache.dtype, device)
    return TextStateEncoder(
        project.texts,
        load_text=lambda: load_text_encoder(
            models.path("text_encoder"),
            models.tokenizer,
            dtype=dtype,
            device=str(device),
            quantize="fp8" if cache.fp8_vl else None,
        ),
        # ByT5 stays in float32, as in the official program: it is small and never cast there.
        load_glyphs=lambda: load_glyph_encoder(models.path("glyph_encoder"), device=str(device)),
        glyph_width=glyph_width(models.path("glyph_encoder")),
        dtype=storage_dtype(cache.text_dtype),
        batch_size=cache.text_batch,
    )


def report(options: Report) -> None:
    """Print what was encoded, and what was left out and why.

    Raises:
        UserError: something is not encoded yet.
    """
    project = Project(options.config, options.overrides, experiment=options.experiment)
    texts, clips, masks = project.texts.entries(), project.latents.entries(), project.masks.entries()
    counts = f"{sum(len(entry.clips) for entry in clips.values())} clips of {len(clips)} files, {len(texts)} texts"
    print(counts + (f", {counted(len(masks), 'mask')}" if masks else ""))
    by_name = [*describe(clips), *describe(masks)]
    if skipped := {name: entry.skipped for name, entry in by_name if entry.skipped}:
        print(f"left out {counted(len(skipped), 'file')}:\n{listing(skipped.values(), shown=len(skipped))}")
    for name, entry in by_name:
        if entry.too_short_for:
            print(f"{one_line(name)}: too short for {', '.join(map(str, entry.too_short_for))} frames")
    notes: dict[str, list[str]] = {}
    for name, entry in by_name:
        for note in entry.notes:
            notes.setdefault(note, []).append(name)
    for sentence in (*media_notes(notes, project.root), *dataset_notes(project)):
        print(f"note: {one_line(sentence)}")


def _open(options: Encode) -> Project:
    """Open the project, draw the demo's clips if they are missing, and register the project with its store."""
    from hv15.workflow import make_demo_clips

    project = Project(options.config, options.overrides, experiment=options.experiment)
    log_to_stderr(project.settings.runtime.log_level)
    make_demo_clips(project)
    register(project.cache, project.root)
    return project


def _shards(encoding: Encoding[Needed], options: Encode) -> list[int]:
    """The shards to encode.

    Raises:
        UserError: there is no such shard, or the workflow planned it for another dataset or config.
    """
    if options.shard is None:
        if options.out:
            raise UserError("--out names one manifest, but all shards are asked for", hint="add --shard N")
        return list(range(encoding.shards))
    if not 0 <= options.shard < encoding.shards:
        raise UserError(f"--shard {options.shard}: cache.shards is {encoding.shards}", hint="shards count from 0")
    if options.spec is not None:
        wanted = Spec.read(options.spec).wanted
        if (wanted.get("settings"), wanted.get("needs")) != (encoding.settings, encoding.needs_digest(options.shard)):
            raise UserError(
                "the dataset or the config changed while the workflow was running",
                hint="run the same command again: what is encoded already is kept",
            )
    return [options.shard]


def _save(encoding: Encoding[Needed], shard: int, manifest: Manifest, out: Path | None) -> None:
    manifest.write(out or encoding.manifest_path(shard))


def _of_shard(options: Encode) -> str:
    return "" if options.shard is None else f" of shard {options.shard}"
