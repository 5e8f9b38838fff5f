"""The parts of `hv15 check`. Each function yields what it finds, or raises a UserError, which ends that part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.choices import ENLARGING_ROLES, Role, TransformerSection, roles_of
from hv15.commands.dataset_notes import dataset_notes, media_notes, names
from hv15.commands.machine_checks import machine_note
from hv15.commands.notes import enlarging_notes, file_notes, lora_notes, sample_notes
from hv15.data.survey import counted
from hv15.errors import UserError, of_the_system
from hv15.file_sizes import bytes_of
from hv15.models.advice import about_memory
from hv15.models.facts import describe
from hv15.plan.dataset_clips import dataset_clips
from hv15.plan.disk import disk_uses
from hv15.project import Project
from hv15.project.checkpoints import earlier_step, is_gone, not_kept
from hv15.records.checks import Check, CheckState
from hv15.records.problems import NOWHERE, Location, Place, dotted
from hv15.sample.plan import first_set
from hv15.spans import WHOLE
from hv15.train.advice import about_lengths, about_sizes, about_training
from hv15.train.optimizer_packages import MissingPackage, check_package
from hv15.units import size

if TYPE_CHECKING:
    from hv15.config import SampleSettings, TrainSettings
    from hv15.models import DiT, DiTConfig

MOST_BUCKETS = 12
"""The most buckets that are listed."""


def failed(subject: str, error: UserError, setting: Location = ()) -> Check:
    """The check of something that raised an error, whose message names the file."""
    return Check("problem", subject, error.message, error.hint, Place(setting=setting))


def _notes(subject: str, sentences: Iterable[str], place: Place = NOWHERE) -> Iterator[Check]:
    """Turn pieces of advice into checks that are not problems."""
    return (Check("note", subject, sentence, place=place) for sentence in sentences)


def model_checks(project: Project) -> Iterator[Check]:
    """Each model file: is it there, is it complete and the right model, and do all of them fit together?"""
    for each in project.models.folder_problems():
        yield Check("problem", "models", each.message, each.hint, each.place)
    dit: DiT | None = None
    widths: dict[str, int] = {}
    for role in (role for role in roles_of(project.settings.task) if role != "tokenizer"):
        path = project.models.path(role)
        try:
            if not path.exists():
                yield _missing(project, role, path)
            elif role == "dit":
                dit = _dit_on_meta(project, path)
                yield from _dit_checks(project, path, dit.config)
            else:
                widths |= _width(project, role, path)
                yield Check("ok", role, size(bytes_of(path, "*.safetensors")), place=Place(path))
        except UserError as error:
            yield failed(role, error, ("models", role))
        except OSError as error:
            if error.filename is None:
                raise
            yield failed(role, of_the_system(error), ("models", role))
    yield from _enlarging_checks(project)
    if dit is not None:
        from hv15.models.condition import check_widths

        try:
            check_widths(dit.config, widths)
        except UserError as error:
            yield failed("dit", error, ("models", "dit"))


def _enlarging_checks(project: Project) -> Iterator[Check]:
    """The models of super resolution that the config names or needs, from their headers alone."""
    models = project.settings.models
    named = [
        role
        for role in ENLARGING_ROLES
        if role in project.settings.roles or (models.source == "files" and getattr(models, role) is not None)
    ]
    if not named:
        return  # most projects; torch need not be imported for that

    from hv15.models import load_dit
    from hv15.models.upsampler_files import load_upsampler

    for role in named:
        path = project.models.path(role)
        try:
            if not path.exists():
                yield _missing(project, role, path)
                continue
            if role == "sr_dit":
                load_dit(path, device="meta", super_resolution=True)
                about = str(describe(path))
            else:
                about = f"to {load_upsampler(path, device='meta').resolution}"
                if len(named) == len(ENLARGING_ROLES) and models.source == "files":
                    assert project.models.super_resolution  # the two belong together
            yield Check("ok", role, about, place=Place(path))
        except UserError as error:
            yield failed(role, error, ("models", role))


def _missing(project: Project, role: Role, path: Path) -> Check:
    if project.settings.models.source != "files":
        return Check("ok", role, "will be made by the workflow", place=Place(path))
    return Check("problem", role, f"{path}: does not exist", place=Place(setting=("models", role)))


def _dit_checks(project: Project, path: Path, config: DiTConfig) -> Iterator[Check]:
    facts, settings = project.models.facts, project.settings
    yield Check("ok", "dit", str(facts), place=Place(path))
    yield from _notes("dit", file_notes(project) + about_training(facts, settings.train.quantize))
    yield from _notes("dit", about_memory(facts, "sample", settings.sample.quantize))
    yield from _speed_checks(project, config)


def _speed_checks(project: Project, config: DiTConfig) -> Iterator[Check]:
    """Settings of memory and speed that do not work with the transformer or on this machine, found before the encoding.

    What only this machine lacks is a note, not a problem: the training may run on another one.
    """
    from hv15.models.attention import pick_attention
    from hv15.models.context_parallel import check_heads
    from hv15.models.weights.quantised import check_weight_format
    from hv15.models.weights.swap import swapped_indices
    from hv15.precision import pick_device, pick_dtype
    from hv15.train.optimizer_classes import optimizer_class

    device, optimizer = pick_device(project.settings.runtime.device), project.settings.train.optimizer_type
    with suppress(MissingPackage):  # which is another check's
        check_package(optimizer)
        try:
            optimizer_class(optimizer)
        except UserError as error:
            yield machine_note("train", error, ("train", "optimizer_type"))
    sections: dict[TransformerSection, TrainSettings | SampleSettings] = {
        "train": project.settings.train,
        "sample": project.settings.sample,
    }
    for name, section in sections.items():
        try:
            swapped_indices(config.num_blocks, section.blocks_to_swap)
        except UserError as error:
            yield failed(name, error, (name, "blocks_to_swap"))
        try:
            check_heads(section.context_parallel, config.num_heads, name)
        except UserError as error:
            yield failed(name, error, (name, "context_parallel"))
        try:
            dtype = pick_dtype(section.dtype, device)
            pick_attention(section.attn_mode, split=False, device=device, dtype=dtype, training=name == "train")
            if section.quantize != "none":
                check_weight_format(section.quantize, device)
        except UserError as error:
            yield machine_note(name, error, (name,))
    yield from _sage_checks(project, config)


def _sage_checks(project: Project, config: DiTConfig) -> Iterator[Check]:
    """The blocks whose attention is sage's."""
    from hv15.models.attention import check_blocks, pick_block_attention
    from hv15.precision import pick_device, pick_dtype

    sample, setting = project.settings.sample, ("sample", "sage_blocks")
    if sample.sage_blocks is None:
        return
    try:
        check_blocks(sample.sage_blocks, config.num_blocks)
    except UserError as error:
        yield failed("sample", error, setting)
        return
    device = pick_device(project.settings.runtime.device)
    dtype = pick_dtype(sample.dtype, device)
    try:
        pick_block_attention(sample.sage_blocks, config.num_blocks, split=False, device=device, dtype=dtype)
    except UserError as error:
        yield machine_note("sample", error, setting)


def _dit_on_meta(project: Project, path: Path) -> DiT:
    """Load the transformer on the meta device: every tensor's name and shape is compared, no weight is read.

    Raises:
        UserError: the file is damaged, is not that model, or its numbers do not suit training.
    """
    from hv15.models import load_dit
    from hv15.precision import pick_device, pick_dtype
    from hv15.train.run import check_dtype

    check_dtype(path, pick_dtype(project.settings.train.dtype, pick_device(project.settings.runtime.device)))
    return load_dit(path, device="meta")


def _width(project: Project, role: Role, path: Path) -> dict[str, int]:
    """The channels of another model's latents or states, by their name in the store. No weight of it is read.

    Raises:
        UserError: the file is damaged, or is not that model.
    """
    from hv15.models import load_glyph_encoder, load_image_encoder, load_text_encoder, load_vae

    if role == "vae":
        return {"latents": load_vae(path, device="meta").config.latent_channels}
    if role == "image_encoder":
        return {"vision": load_image_encoder(path, device="meta").config.hidden_size}
    if role == "text_encoder":
        text = load_text_encoder(path, project.models.tokenizer, device="meta")
        return {"text": text.model.get_parameter("embed_tokens.weight").shape[1]}
    glyphs = load_glyph_encoder(path, device="meta")
    return {"glyphs": glyphs.model.get_parameter("embed_tokens.weight").shape[1]}


def beforehand_checks(project: Project) -> Iterator[Check]:
    """What later jobs need: LoRAs and first images, the tokenizer, patterns and arguments of the training."""
    from hv15.plan.beforehand import early_checks

    seen: set[tuple[str, str | Path | None]] = set()
    for early in early_checks(project):
        if (mark := (early.subject, early.key or early.file)) in seen:
            continue
        seen.add(mark)
        try:
            early.check()
        except UserError as error:
            yield replace(failed(early.subject, error), place=project.settings.place_of(early.setting))
            continue
        if early.file is not None:
            yield Check("ok", early.subject, "can be used", place=Place(early.file))
        if early.subject == "lora" and early.file is not None:
            yield from _notes("lora", lora_notes(project, early.file), project.settings.place_of(early.setting))


def publish_checks(project: Project) -> Iterator[Check]:
    """Can the LoRA of `train.publish_step` still be had?"""
    train = project.settings.train
    step = earlier_step(train, train.publish_step)
    if step is None:
        return
    try:
        gone = is_gone(train, project.training_spec, project.paths, project.kept, step)
    except UserError:
        return  # a model, a clip or a LoRA is missing, which the other checks report
    if gone:
        yield failed("publish", not_kept(step, project.kept, "train.publish_step"), ("train", "publish_step"))


def sample_checks(project: Project) -> Iterator[Check]:
    """What is unusual in the samples' settings for this checkpoint."""
    try:
        specs, enlarged = project.samples, project.enlarged
    except UserError:
        return  # a model, an image or a LoRA is missing, which the other checks report
    notes: dict[str, list[str]] = {}
    for name, spec in specs.items():
        for sentence in sample_notes(project, spec):
            notes.setdefault(sentence, []).append(name)
    for name, spec in enlarged.items():
        for sentence in enlarging_notes(project, spec):
            notes.setdefault(sentence, []).append(name)
    yield from _notes("sample", [f"{', '.join(names)}: {sentence}" for sentence, names in notes.items()])


def dataset_checks(project: Project) -> Iterator[Check]:
    """Each dataset: how many files give how many clips, in which buckets, which files cannot be used, and notes."""
    if not project.settings.datasets:
        yield Check("ok", "dataset", "none: the project only samples", place=Place(setting=("datasets",)))
        return
    clips = dataset_clips(project)
    buckets = Counter(f"{clip.frames} x {clip.height} x {clip.width}" for _, clip in clips.found)
    are_drawn = any(each.source.others for each in project.dataset.sources)
    texts, count = "distinct text" if are_drawn else "distinct caption", len(clips.found)
    counts = {"file": len(project.dataset.sources), "clip": count}
    counts |= {texts: len(project.dataset.texts), "bucket": len(buckets)}
    if clips.masks:
        counts["mask"] = clips.masks
    found = ", ".join(counted(number, name) for name, number in counts.items())
    yield Check("ok" if count else "problem", "dataset", found, place=Place(setting=("datasets",)))
    datasets = project.dataset.datasets
    if kept := [each.source.place for each in project.dataset.trained_sources if datasets[each.dataset].is_reg]:
        yield Check("ok", "regularisation", f"{counted(len(kept), 'file')}: {names(kept, project.root)}")
    yield from _parts_of_datasets(project)
    if project.settings.train.validation.is_on:
        validated = [pair.name for pair in project.dataset.validation_pairs]
        said = f"{counted(len(validated), 'file')} not trained on: {names(validated, project.root)}"
        yield Check("ok", "validation", said, place=Place(setting=("train", "validation")))
    yield from _bucket_checks(buckets)
    sizes = Counter((clip.height, clip.width) for _, clip in clips.found)
    yield from _notes("dataset", about_sizes(project.models.found_variant.variant, sizes))
    sample = project.settings.sample
    longest = max((first_set(prompt.video_length, sample.video_length) for prompt in sample.prompts), default=0)
    for dataset, sentence in about_lengths(project.settings.datasets, longest).items():
        place = Place(setting=("datasets", dataset, "target_frames"))
        yield Check("note", "dataset", f"datasets[{dataset}]: {sentence}", place=place)
    yield from _notes("dataset", media_notes(clips.notes, project.root))
    yield from _notes("dataset", dataset_notes(project))
    unusable: CheckState = "problem" if project.settings.cache.bad_clips == "stop" else "note"
    yield from (Check("note", "too short", message) for message in clips.too_short)
    yield from (Check(unusable, "unusable", error.message, error.hint) for error in clips.unusable)


def _parts_of_datasets(project: Project) -> Iterator[Check]:
    """Datasets of which not all files are used, or not all the time."""
    found = project.dataset
    used = Counter(each.dataset for each in found.sources)
    for number, (dataset, survey) in enumerate(zip(found.datasets, found.surveys, strict=True)):
        setting, said = found.setting(number), list[str]()
        if used[number] < len(survey.sources):
            said.append(f"{used[number]} of {counted(len(survey.sources), 'file')} are used (max_num_samples)")
        if dataset.span != WHOLE:
            said.append(f"takes part {dataset.span}")
        if said:
            yield Check("ok", "dataset", f"{dotted(setting)}: {', '.join(said)}", place=Place(setting=setting))


def _bucket_checks(buckets: Counter[str]) -> Iterator[Check]:
    """The largest buckets, and how many clips the others have: a folder of pictures may have thousands."""
    for name, number in sorted(buckets.most_common(MOST_BUCKETS)):
        yield Check("ok", "bucket", f"{name} (frames, height, width): {counted(number, 'clip')}")
    if len(buckets) > MOST_BUCKETS:
        rest = buckets.most_common()[MOST_BUCKETS:]
        yield Check("ok", "bucket", f"{len(rest)} smaller ones: {sum(number for _, number in rest)} clips")


def disk_checks(project: Project) -> Iterator[Check]:
    """Free space where the cache and the results are, and whether what is missing fits into it."""
    for use in disk_uses(project):
        listed = ", ".join(f"{size(needed)} {name}" for name, needed in use.needs.items() if needed)
        estimate = f"; still to be written: about {listed}" if listed else ""
        names = " and ".join(map(str, use.folders))
        lack = f"; {size(use.missing)} too little" if use.missing else ""
        state: CheckState = "problem" if use.is_too_full else "ok"
        yield Check(state, "disk", f"{size(use.free)} free for {names}{estimate}{lack}")
        for path, (why, hint) in use.refused.items():
            yield Check("problem", "disk", why, hint, Place(path))
