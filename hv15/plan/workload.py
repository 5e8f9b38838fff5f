"""What a project asks of each stage: the largest batch, the longest text, how many of each. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hv15.config import DatasetSettings
from hv15.errors import UserError
from hv15.grid import PIXELS_PER_CELL, encodable_frames, encodable_side, latent_size, video_size
from hv15.models.templates import MAX_TEXT_TOKENS
from hv15.project import Project

TEXT_TOKENS = 300
"""Tokens of a usual caption, where no caption is known."""
CHARACTERS = 3
"""Characters in a token; rather a low estimate."""
TEMPLATE = 20
"""Tokens of the template that follow a caption."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one size, as a training would batch them."""

    samples: int
    """In one batch."""
    frames: int
    height: int
    width: int
    repeats: int = 1
    """How often each is shown in an epoch."""

    @property
    def latent(self) -> tuple[int, int, int]:
        return latent_size(self.frames, self.height, self.width)

    @property
    def tokens(self) -> int:
        return self.samples * math.prod(self.latent)


_SMALLEST = ClipBatch(1, 1, PIXELS_PER_CELL, PIXELS_PER_CELL)


@dataclass(frozen=True)
class Video:
    """A sample."""

    name: str
    frames: int
    height: int
    width: int
    steps: int
    guided: bool

    @property
    def latent(self) -> tuple[int, int, int]:
        return latent_size(self.frames, self.height, self.width)


@dataclass(frozen=True)
class ValidationWork:
    """What the validations of a training measure."""

    largest: ClipBatch
    mean_tokens: float
    """Of a clip."""
    passes: int
    """Forward passes, in all validations together."""


@dataclass(frozen=True)
class Workload:
    """Everything that a project computes."""

    task: str
    batch: ClipBatch
    """The largest one; without datasets, the smallest that there can be."""
    clips: int
    batches: int
    """Of an epoch."""
    mean_tokens: float
    """Of a batch, over an epoch."""
    texts: int
    text_tokens: int
    """Of the longest text."""
    steps: int
    validation: ValidationWork | None
    videos: tuple[Video, ...]
    note: str
    """Where sizes and numbers come from."""


def workload(project: Project) -> Workload:
    """What a project asks for: its clips as the manifests list them, else at most what the config allows."""
    settings = project.settings
    listed, note = _listed(project) if settings.datasets else ([], "the project only samples")
    datasets = settings.datasets
    clips = listed or [clip for dataset in datasets for clip in _allowed(dataset)] or [_SMALLEST]
    repeats = sum(clip.repeats for clip in clips)
    if listed:
        total, shown = len(listed), repeats
    else:
        counts = _counts(project)
        total = sum(counts)
        shown = sum(count * dataset.num_repeats for count, dataset in zip(counts, datasets, strict=True))
    per_batch = sum(clip.samples * clip.repeats for clip in clips) / repeats
    batches = max(1, math.ceil(shown / per_batch))
    captions = _captions(project)
    tokens = max((len(text) for text in captions), default=TEXT_TOKENS * CHARACTERS) // CHARACTERS + TEMPLATE
    train = settings.train
    epochs, accumulation = train.max_train_epochs or 1, train.batches_per_step
    steps = (train.max_train_steps or math.ceil(epochs * batches / accumulation)) if datasets else 0
    return Workload(
        task=settings.task,
        batch=max(clips, key=lambda clip: clip.tokens),
        clips=total,
        batches=batches,
        mean_tokens=sum(clip.tokens * clip.repeats for clip in clips) / repeats,
        texts=len(captions),
        text_tokens=min(MAX_TEXT_TOKENS, tokens),
        steps=steps,
        validation=_measured(project, clips, per_batch * accumulation, steps, batches / accumulation),
        videos=_videos(project),
        note=note,
    )


def _listed(project: Project) -> tuple[list[ClipBatch], str]:
    """The clips that are encoded, with their batches' size."""
    try:
        items = project.training_items()
    except UserError:
        return [], "clips are not encoded yet: sizes and numbers are the largest that the config allows"
    clips = [ClipBatch(item.batch_size, *video_size(*item.shape), repeats=item.repeats) for item in items]
    return clips, "clips as they are encoded"


def _measured(
    project: Project, trained: list[ClipBatch], samples_per_step: float, steps: int, steps_per_epoch: float
) -> ValidationWork | None:
    """What is measured between the steps of a training."""
    train = project.settings.train
    asked, both = train.validation, project.settings.task == "i2v" and 0 < train.i2v_prob < 1
    if not asked.is_on:
        return None
    try:
        held_out = [ClipBatch(1, *video_size(*item.shape)) for item in project.validation_items()]
    except UserError:
        held_out = [clip for dataset in asked.datasets for clip in _allowed(dataset)]
    clips = [replace(clip, samples=1) for clip in (*held_out, *trained)]
    interval = asked.interval(samples_per_step, both_tasks=both, checkpointing=train.gradient_checkpointing)
    distance = interval or (asked.every_n_epochs or 1) * steps_per_epoch
    times = int(steps // distance) + asked.at_first
    return ValidationWork(
        largest=max(clips, key=lambda clip: clip.tokens),
        mean_tokens=sum(clip.tokens for clip in clips) / len(clips),
        passes=times * asked.passes(both_tasks=both),
    )


def _allowed(dataset: DatasetSettings) -> list[ClipBatch]:
    """One clip of each length: no bucket has more pixels than `resolution`."""
    width, height = (max(encodable_side(side), PIXELS_PER_CELL) for side in dataset.resolution)
    lengths: tuple[int, ...] = dataset.target_frames
    if dataset.kind == "image":
        lengths = (1,)
    elif dataset.frame_extraction == "full":
        lengths = (encodable_frames(dataset.max_frames),)
    return [ClipBatch(dataset.batch_size, frames, height, width, dataset.num_repeats) for frames in lengths]


def _counts(project: Project) -> list[int]:
    """Clips of each dataset at most, without opening a file."""
    found = [0] * len(project.settings.datasets)
    try:
        for each in project.dataset.trained_sources:
            number = each.dataset
            dataset = project.settings.datasets[number]
            windows = dataset.frame_sample if dataset.frame_extraction == "uniform" else 1
            found[number] += windows * len(_allowed(dataset))
    except UserError:
        pass
    return [max(count, 1) for count in found]


def _captions(project: Project) -> set[str]:
    prompts = {prompt.prompt for prompt in project.settings.sample.prompts}
    try:
        return {"", *prompts, *(each.source.caption for each in project.dataset.sources)}
    except UserError:
        return prompts


def _videos(project: Project) -> tuple[Video, ...]:
    """The videos of all prompts; a prompt that is also sampled without the LoRA counts twice."""
    from hv15.models.variants import VARIANTS
    from hv15.sample.plan import first_set

    sample, official = project.settings.sample, VARIANTS[project.models.variant]
    steps = first_set(sample.infer_steps, official.infer_steps)
    guidance = first_set(sample.guidance_scale, official.guidance_scale)
    videos = []
    for prompt in sample.prompts:
        height, width = first_set(prompt.video_size, sample.video_size)
        guided = first_set(prompt.guidance_scale, guidance) > 1
        frames, count = first_set(prompt.video_length, sample.video_length), first_set(prompt.infer_steps, steps)
        video = Video(prompt.name, frames, height, width, count, guided)
        videos += [video] * (2 if first_set(prompt.with_base, sample.with_base) else 1)
    return tuple(videos)
