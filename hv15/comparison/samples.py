"""Samples of several trainings from the same prompts and noise, side by side: as one sheet and as one video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hv15.comparison.groups import TrainingComparison
from hv15.errors import UserError
from hv15.project.grids import NO_LORA, row_titles
from hv15.project.metadata import product_metadata
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.metadata import SAMPLE
from hv15.records.outputs import output_of
from hv15.records.paths import ProjectPaths
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec

MOST_ROWS = 12
"""Prompts of a sheet; the first ones are shown."""
MOST_COLUMNS = 12
"""Trainings of a sheet; those with the lowest validation losses are shown, or the first ones."""


@dataclass(frozen=True)
class SideBySide:
    """The samples that are shown."""

    columns: tuple[str, ...]
    rows: tuple[ComparedSample, ...]
    left_out: str = ""
    """What is not shown, in a sentence; "" if that is nothing."""


@dataclass(frozen=True)
class ComparedSample:
    """One prompt, with the samples from the same noise, one for each column."""

    title: str
    height: int
    width: int
    """Of each, in pixels."""
    fps: float
    files: tuple[Path, ...]


def noise_of(spec: SampleSpec) -> str:
    """Return what two samples have in common that are compared: the name of the prompt, its text, and the noise."""
    return repr((spec.name, spec.prompt, spec.seed, spec.height, spec.width, spec.frames))


def shown_trainings(comparison: TrainingComparison) -> dict[str, str]:
    """Return the names of the trainings whose samples are shown, each with its label: the first seed of each group.

    If all differ in their seeds alone, those are shown.
    """
    groups = list(comparison.groups)
    if len(groups) == 1:
        return {each.name: each.name for each in comparison.trainings[:MOST_COLUMNS]}
    if len(groups) > MOST_COLUMNS:
        best = sorted(groups, key=lambda each: each.validation.mean if each.validation else float("inf"))
        groups = [group for group in groups if group in best[:MOST_COLUMNS]]
    return {group.first.name: group.label for group in groups}


def find_samples(paths: ProjectPaths) -> dict[str, tuple[SampleSpec, Path]]:
    """Return the decoded samples of a project or an experiment that tell how they were made, by what is compared."""
    found: dict[str, tuple[SampleSpec, Path]] = {}
    for path in sorted(paths.samples.glob("*")) if paths.samples.is_dir() else ():
        output = output_of(path)
        if output is None or not output.is_decoded:
            continue
        try:
            spec = SampleSpec.from_json(_told(path), str(path))
        except (UserError, RecordError, OSError, KeyError):
            continue
        found.setdefault(noise_of(spec), (spec, path))
    return found


def _told(path: Path) -> JsonObject:
    return parse_object(product_metadata(path)[SAMPLE])


def side_by_side(
    labels: Mapping[str, str], samples: Mapping[str, Mapping[str, tuple[SampleSpec, Path]]]
) -> SideBySide | None:
    """Return the samples that all trainings have, in rows; None if there are no two trainings or no such samples.

    If each prompt was also sampled without the LoRA, these are the first column.

    Args:
        labels: of the trainings that are shown, by name.
        samples: of each of them, by what is compared (`find_samples`).
    """
    names = [name for name in labels if samples.get(name)]
    if len(names) < 2:
        return None
    first = samples[names[0]]
    common = [key for key in first if all(key in samples[name] for name in names)]
    with_lora = [key for key in common if not first[key][0].name.endswith(BASE_SUFFIX)]
    if not with_lora:
        return None
    shown = with_lora[:MOST_ROWS]
    bases = {spec.name: path for spec, path in first.values() if spec.name.endswith(BASE_SUFFIX)}
    base_names = [first[key][0].name + BASE_SUFFIX for key in shown]
    with_base = all(name in bases for name in base_names)
    titles = row_titles({first[key][0].name: first[key][0] for key in shown})
    rows = []
    for key, base in zip(shown, base_names, strict=True):
        spec = first[key][0]
        files = [*([bases[base]] if with_base else []), *(samples[name][key][1] for name in names)]
        rows.append(ComparedSample(titles[spec.name], spec.height, spec.width, spec.fps, tuple(files)))
    columns = (*([NO_LORA] if with_base else []), *(labels[name] for name in names))
    missing = len(with_lora) - len(shown)
    return SideBySide(columns, tuple(rows), f"{missing} more prompts are not shown." if missing else "")


def draw_samples(shown: SideBySide, sheet: Path, film: Path, metadata: Mapping[str, str]) -> None:
    """Write the sheet, a few frames of each sample, and the video in which all play together.

    Raises:
        UserError: a sample is missing or damaged, or the disk is full.
    """
    from hv15.data.encode import write_image, write_video
    from hv15.sample.checkpoint_grid import draw_film, draw_grid, film_scale, read_line

    scale = film_scale([(row.height, row.width) for row in shown.rows], len(shown.columns))
    lines = [read_line(row.title, row.files, row.fps, scale) for row in shown.rows]
    write_image(sheet, draw_grid(lines, shown.columns), metadata)
    frames, fps = draw_film(lines, shown.columns)
    write_video(film, frames, fps, metadata)
