"""The files that a finished project has beside its LoRA: samples, the sheet that compares them, conversions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.config import Settings, TrainSettings
from hv15.records.outputs import OUTPUT_TYPES
from hv15.records.paths import ProjectPaths, average_of
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec


def sample_files(spec: SampleSpec, paths: ProjectPaths) -> list[Path]:
    """The files that a sample's `output_type` asks for, those that can be viewed first."""
    return [output.path(paths, spec.name) for output in OUTPUT_TYPES[spec.output_type]]


def shown_files(samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> list[Path]:
    """The files of all samples that people look at."""
    files = [file for spec in samples.values() for file in sample_files(spec, paths)]
    return [*files, paths.contact_sheet] if sheet_samples(samples, paths) else files


def shown_samples(samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> dict[str, Path]:
    """The samples that can be viewed, by name."""
    shown = {name: OUTPUT_TYPES[spec.output_type][0] for name, spec in samples.items()}
    return {name: output.path(paths, name) for name, output in shown.items() if output.is_decoded}


def sheet_samples(samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> dict[str, tuple[Path, Path | None]]:
    """The samples of the contact sheet, by name: the one with the LoRA, and the one without it if there is one.

    Empty if there are fewer than two: the sheet is for comparing them.
    """
    shown = shown_samples(samples, paths)
    if len(shown) < 2:
        return {}
    with_lora = {name: file for name, file in shown.items() if not name.endswith(BASE_SUFFIX)}
    return {name: (file, shown.get(name + BASE_SUFFIX)) for name, file in with_lora.items()}


def lora_files(train: TrainSettings, lora: Path) -> list[Path]:
    """A trained LoRA's file, and that of its moving average if it has one."""
    return [lora, average_of(lora)] if train.ema_decay else [lora]


def products(settings: Settings, samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> list[Path]:
    """Everything that belongs to a finished LoRA."""
    name = settings.convert.output_name
    return shown_files(samples, paths) + [paths.converted(layout, name) for layout in settings.convert.formats]
