"""What a project asks of each stage: the largest batch, the longest text, how many of each. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hv15.config import DatasetSettings, Settings
from hv15.config.sample_columns import columns_of
from hv15.errors import UserError
from hv15.grid import PIXELS_PER_CELL, encodable_frames, encodable_side, latent_size, video_size
from hv15.models.super_resolution import SUPER_RESOLUTIONS
from hv15.models.templates import MAX_TEXT_TOKENS
from hv15.plan.model_sizes import chosen_enlarging
from hv15.plan.prior_passes import prior_share
from hv15.project import Project
from hv15.spans import WHOLE, Span, parts

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
class PreviewWork:
    """What is sampled while training."""

    videos: tuple[Video, ...]
    times: int
    """How often."""


@dataclass(frozen=True)
class TrainingPart:
    """The steps of a training in which the same datasets take part."""

    span: Span
    steps: int
    batches: int
    """Of an epoch."""
    samples_per_batch: float
    mean_tokens: float
    """Of a batch, over an epoch."""


@dataclass(frozen=True)
class Workload:
    """Everything that a project computes."""

    task: str
    batch: ClipBatch
    """The largest one; without datasets, the smallest that there can be."""
    clips: int
    batches: int
    """Of an epoch, in the longest part of the training."""
    mean_tokens: float
    """Of a batch, over the training."""
    texts: int
    text_tokens: int
    """Of the longest text."""
    steps: int
    prior_share: float
    """Share of the batches for which the model without the LoRA predicts, too."""
    parts: tuple[TrainingPart, ...]
    """One, unless datasets begin or end within the training."""
    validation: ValidationWork | None
    previews: PreviewWork | None
    videos: tuple[Video, ...]
    enlarged: tuple[Video, ...]
    """What super resolution makes of some of them, at the large size and with its own steps."""
    note: str
    """Where sizes and numbers come from."""


def workload(project: Project) -> Workload:
    """What a project asks for: its clips as the manifests list them, else at most what the config allows."""
    settings = project.settings
    groups, note = _groups(project)
    clips = [clip for group in groups for clip in group.clips]
    texts = _texts(project)
    tokens = max((len(text) for text in texts), default=TEXT_TOKENS * CHARACTERS) // CHARACTERS + TEMPLATE
    per_step = settings.train.batches_per_step
    found = _training_parts(groups, settings.train.max_train_steps, settings.train.max_train_epochs, per_step)
    longest = max(found, key=lambda each: each.steps)
    steps = sum(each.steps for each in found) if settings.datasets else 0
    mean_tokens = longest.mean_tokens
    if len(found) > 1:
        mean_tokens = sum(each.mean_tokens * each.steps for each in found) / steps
    samples_per_step = min(each.samples_per_batch for each in found) * per_step
    videos = _videos(project)
    return Workload(
        task=settings.task,
        batch=max(clips, key=lambda clip: clip.tokens),
        clips=sum(group.count for group in groups),
        batches=longest.batches,
        mean_tokens=mean_tokens,
        texts=len(texts),
        text_tokens=min(MAX_TEXT_TOKENS, tokens),
        steps=steps,
        parts=found,
        prior_share=prior_share(project, {each.span: each.steps for each in found}) if settings.datasets else 0.0,
        validation=_measured(project, clips, samples_per_step, steps, longest.batches / per_step),
        previews=_previews(settings, videos, steps, longest.batches / per_step),
        videos=videos,
        enlarged=_enlarged(project, videos),
        note=note,
    )


@dataclass(frozen=True)
class _Group:
    """The clips that take part in the same steps."""

    clips: list[ClipBatch]
    """One of each kind."""
    count: int
    """Of all clips."""
    shown: int
    """How many are shown in an epoch."""
    span: Span


def _groups(project: Project) -> tuple[list[_Group], str]:
    """The clips that are encoded, else what the datasets allow, and a note on which of the two."""
    if not project.settings.datasets:
        return [_Group([_SMALLEST], 0, 0, WHOLE)], "the project only samples"
    try:
        items = project.training_items()
    except UserError:
        note = "clips are not encoded yet: sizes and numbers are the largest that the config allows"
        datasets = zip(project.settings.datasets, _counts(project), strict=True)
        return [
            _Group(_allowed(dataset), count, count * dataset.num_repeats, dataset.span) for dataset, count in datasets
        ], note
    found: dict[Span, list[ClipBatch]] = {}
    for item in items:
        clip = ClipBatch(item.batch_size, *video_size(*item.shape), repeats=item.repeats)
        found.setdefault(item.span, []).append(clip)
    groups = [_Group(clips, len(clips), sum(clip.repeats for clip in clips), span) for span, clips in found.items()]
    return groups, "clips as they are encoded"


def _training_parts(
    groups: list[_Group], max_steps: int | None, max_epochs: int | None, per_step: int
) -> tuple[TrainingPart, ...]:
    """Divide a training where a dataset begins or ends; each part begins a new epoch (`hv15.train.scheduled`)."""
    found: list[TrainingPart] = []
    epochs = max_epochs or 1
    for span in parts(group.span for group in groups):
        shown = [group for group in groups if group.span.has(span.start)]
        if not shown or (max_steps is not None and span.start >= max_steps):
            continue
        clips = [clip for group in shown for clip in group.clips]
        repeats = sum(clip.repeats for clip in clips)
        per_batch = sum(clip.samples * clip.repeats for clip in clips) / repeats
        batches = max(1, math.ceil(sum(group.shown for group in shown) / per_batch))
        end = math.ceil(epochs * batches / per_step) + span.start if max_steps is None else max_steps
        steps = (end if span.end is None else min(end, span.end)) - span.start
        mean_tokens = sum(clip.tokens * clip.repeats for clip in clips) / repeats
        found.append(TrainingPart(span, steps, batches, per_batch, mean_tokens))
        epochs -= math.ceil(steps * per_step / batches)
        if max_steps is None and epochs <= 0:
            break
    return tuple(found)


def _measured(
    project: Project, trained: list[ClipBatch], samples_per_step: float, steps: int, steps_per_epoch: float
) -> ValidationWork | None:
    """What is measured between the steps of a training."""
    train = project.settings.train
    asked, both = train.validation, project.settings.trains_both_tasks
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


def _previews(settings: Settings, videos: Sequence[Video], steps: int, steps_per_epoch: float) -> PreviewWork | None:
    """What is sampled between the steps of a training; None if nothing is."""
    train, size = settings.train, settings.train.preview
    times = int(train.preview_at_first)
    if train.preview_every_n_steps is not None:
        times += steps // train.preview_every_n_steps
    if train.preview_every_n_epochs is not None:
        times += int(steps // (train.preview_every_n_epochs * steps_per_epoch))
    by_name = {video.name: video for video in videos}
    wanted = [by_name[name] for name in train.previews or by_name]
    if not (times and steps and wanted):
        return None
    smaller: list[Video] = []
    for video in wanted:
        height, width = size.video_size or (video.height, video.width)
        frames, count = size.video_length or video.frames, size.infer_steps or video.steps
        smaller.append(replace(video, frames=frames, height=height, width=width, steps=count))
    return PreviewWork(tuple(smaller), times)


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


def _texts(project: Project) -> set[str]:
    prompts = {prompt.prompt for prompt in project.settings.sample.prompts}
    try:
        return {"", *prompts, *project.dataset.texts.values()}
    except UserError:
        return prompts


def _videos(project: Project) -> tuple[Video, ...]:
    """The videos of all prompts, seeds, strengths and compared LoRAs, with those without the LoRA."""
    from hv15.models.variants import VARIANTS
    from hv15.sample.plan import first_set

    sample, official = project.settings.sample, VARIANTS[project.models.variant]
    steps = first_set(sample.infer_steps, official.infer_steps)
    guidance = first_set(sample.guidance_scale, official.guidance_scale)
    trains, videos = bool(project.settings.datasets), []
    columns = len(columns_of(sample, trains=trains))
    for prompt in sample.prompts:
        height, width = first_set(prompt.video_size, sample.video_size)
        guided = first_set(prompt.guidance_scale, guidance) > 1
        frames, count = first_set(prompt.video_length, sample.video_length), first_set(prompt.infer_steps, steps)
        with_base = trains and first_set(prompt.with_base, sample.with_base)
        for name in sample.seeds_of(prompt):
            videos += [Video(name, frames, height, width, count, guided)] * (columns + with_base)
    return tuple(videos)


def _enlarged(project: Project, videos: Sequence[Video]) -> tuple[Video, ...]:
    """What super resolution makes of the videos, but for those without the LoRA."""
    from hv15.sample.plan import first_set
    from hv15.sample.resolutions import enlarged_size

    sample, found = project.settings.sample, list[Video]()
    if sample.enlarging == "off":
        return ()
    chosen = SUPER_RESOLUTIONS[chosen_enlarging(project)]
    steps = first_set(sample.sr_steps, chosen.infer_steps)
    by_name = {video.name: video for video in videos}
    columns = len(columns_of(sample, trains=bool(project.settings.datasets)))
    for prompt in sample.prompts:
        for name in sample.seeds_of(prompt) if sample.sr_of(prompt) != "off" else ():
            small = by_name[name]
            height, width = enlarged_size(small.height, small.width, chosen.resolution)
            found += [replace(small, height=height, width=width, steps=steps, guided=False)] * columns
    return tuple(found)
