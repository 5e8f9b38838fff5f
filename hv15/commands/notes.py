"""What a stage logs about its checkpoint: facts, and advice for this project."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hv15.cache.batches import TrainingItem
from hv15.grid import video_size
from hv15.lora.advice import about_lora
from hv15.models.advice import about_checkpoint, about_memory
from hv15.models.weights.header import read_header
from hv15.project import Project
from hv15.sample.advice import about_enlarging, about_graphs, about_sample
from hv15.sample.prompts import SampleSpec
from hv15.train.advice import about_sizes, about_training


def checkpoint_line(project: Project) -> str:
    """Which checkpoint the transformer is taken to be, how that was found, and its sampling defaults."""
    found = project.models.found_variant
    return f"checkpoint {found}; sampling defaults: {found.variant.defaults}"


def file_notes(project: Project) -> list[str]:
    """Notes about the transformer's file that hold for every use.

    Raises:
        UserError: the file is missing or damaged.
    """
    return about_checkpoint(project.models.facts, project.settings.task)


def training_notes(project: Project, items: Iterable[TrainingItem]) -> list[str]:
    """Notes about training on the transformer's file with these clips, and with the LoRAs that it uses.

    Raises:
        UserError: a file is missing or damaged.
    """
    sizes = Counter(video_size(*item.shape)[1:] for item in items)
    train = project.settings.train
    loras = [*([train.network_weights] if train.network_weights else ()), *(each.path for each in train.base_weights)]
    return [
        *about_training(project.models.facts, train.quantize),
        *about_sizes(project.models.found_variant.variant, sizes),
        *(note for path in loras for note in lora_notes(project, project.settings.resolve(path))),
    ]


def sample_notes(project: Project, spec: SampleSpec) -> list[str]:
    """Notes about a sample's settings."""
    about_spec = about_sample(
        project.models.found_variant.variant,
        height=spec.height,
        width=spec.width,
        steps=spec.steps,
        guidance_scale=spec.guidance_scale,
    )
    return about_spec + about_graphs(project.settings.sample)


def enlarging_notes(project: Project, spec: SampleSpec) -> list[str]:
    """Notes about the sizes of a sample that super resolution makes larger. The demo's models have their own sizes."""
    if spec.enlarges is None or project.models.super_resolution_is_demo:
        return []
    return about_enlarging(spec.enlarges, height=spec.height, width=spec.width)


def denoising_notes(project: Project, specs: Sequence[SampleSpec], loras: Iterable[Path]) -> list[str]:
    """Notes about denoising samples with these LoRA files.

    Args:
        specs: at least one, of one `quantize`.

    Raises:
        UserError: a LoRA is missing or damaged.
    """
    return [
        *(note for spec in specs for note in sample_notes(project, spec)),
        *about_memory(project.models.facts, "sample", specs[0].quantize),
        *(note for path in loras for note in lora_notes(project, path)),
    ]


def lora_notes(project: Project, path: Path) -> list[str]:
    """Notes about using a LoRA file on the transformer.

    Raises:
        UserError: it is missing or damaged.
    """
    return about_lora(path, read_header(path).metadata, project.models.found_variant.variant)


def log_notes(log: logging.Logger, project: Project, sentences: Iterable[str]) -> None:
    """Log the checkpoint and the advice.

    Raises:
        UserError: the transformer's file is missing or damaged.
    """
    log.info("%s: %s", project.models.path("dit"), project.models.facts)
    log.info("%s", checkpoint_line(project))
    for sentence in dict.fromkeys([*file_notes(project), *sentences]):
        log.warning("note: %s", sentence)
