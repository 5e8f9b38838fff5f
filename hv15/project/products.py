"""The files that a finished project has beside its LoRA: samples, the sheet that compares them, conversions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hv15.config import Settings, TrainSettings
from hv15.config.sample_columns import row_name
from hv15.project.grids import sample_rows
from hv15.records.outputs import OUTPUT_TYPES
from hv15.records.paths import ProjectPaths, average_of
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec


def sample_files(spec: SampleSpec, paths: ProjectPaths) -> list[Path]:
    """The files that a sample's `output_type` asks for, those that can be viewed first."""
    return [output.path(paths, spec.name) for output in OUTPUT_TYPES[spec.output_type]]


def shown_files(
    settings: Settings, samples: Mapping[str, SampleSpec], enlarged: Mapping[str, SampleSpec], paths: ProjectPaths
) -> list[Path]:
    """The files of all samples that people look at; arguments as in `sheet_samples`."""
    files = [file for spec in (*samples.values(), *enlarged.values()) for file in sample_files(spec, paths)]
    if sample_rows(settings, samples, paths):
        return [*files, paths.sample_grid, paths.sample_film]
    return [*files, paths.contact_sheet] if sheet_samples(samples, enlarged, paths) else files


def shown_samples(samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> dict[str, Path]:
    """The files of the samples that can be viewed, by the same names."""
    shown = {name: (spec.name, OUTPUT_TYPES[spec.output_type][0]) for name, spec in samples.items()}
    return {name: output.path(paths, own) for name, (own, output) in shown.items() if output.is_decoded}


@dataclass(frozen=True)
class SheetFiles:
    """The files of one row of the contact sheet."""

    shown: Path
    """The sample with the LoRA."""
    without: Path | None = None
    """The one without it, if there is one."""
    enlarged: Path | None = None
    """The one that super resolution has made larger, if there is one."""

    @property
    def files(self) -> list[Path]:
        return [file for file in (self.shown, self.without, self.enlarged) if file is not None]


def sheet_samples(
    samples: Mapping[str, SampleSpec], enlarged: Mapping[str, SampleSpec], paths: ProjectPaths
) -> dict[str, SheetFiles]:
    """The samples of the contact sheet, by name.

    Empty if there are fewer than two, with those that were made larger: the sheet is for comparing them.

    Args:
        enlarged: what super resolution makes, by the names of the samples.
    """
    shown, larger = shown_samples(samples, paths), shown_samples(enlarged, paths)
    if len(shown) + len(larger) < 2:
        return {}
    with_lora = {name: file for name, file in shown.items() if not name.endswith(BASE_SUFFIX)}
    return {name: SheetFiles(file, shown.get(name + BASE_SUFFIX), larger.get(name)) for name, file in with_lora.items()}


def gallery_files(settings: Settings, samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> dict[str, Path]:
    """The samples with the trained LoRA that a model card shows (`convert.gallery`), by name; folders are left out."""
    rows = {
        name
        for prompt in settings.sample.prompts
        if prompt.name in settings.convert.gallery
        for name in settings.sample.seeds_of(prompt)
    }
    trains = bool(settings.datasets)
    of_rows = {name: spec for name, spec in samples.items() if row_name(name) in rows}
    chosen = {name: spec for name, spec in of_rows.items() if spec.lora_multiplier is not None or not trains}
    shown = shown_samples(chosen, paths)
    return {name: file for name, file in shown.items() if file.suffix}


def lora_files(train: TrainSettings, lora: Path) -> list[Path]:
    """A trained LoRA's file, and that of its moving average if it has one."""
    return [lora, average_of(lora)] if train.ema_decay else [lora]


def products(
    settings: Settings, samples: Mapping[str, SampleSpec], enlarged: Mapping[str, SampleSpec], paths: ProjectPaths
) -> list[Path]:
    """Everything that belongs to a finished LoRA; arguments as in `sheet_samples`."""
    name = settings.convert.output_name
    converted = [paths.converted(layout, name) for layout in settings.convert.formats]
    return shown_files(settings, samples, enlarged, paths) + converted
