"""Which samples stand where on a sheet: a row for each prompt and seed, a column for each step or strength and LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.config import Settings
from hv15.config.sample_columns import NO_LORA, STRENGTH_SUFFIX, columns_of, row_name
from hv15.records.outputs import OUTPUT_TYPES
from hv15.records.paths import ProjectPaths
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec


@dataclass(frozen=True)
class GridCell:
    """One sample."""

    file: Path
    """Relative to the project folder."""
    label: str
    """What stands over its column."""
    sample: str
    """Its name."""
    step: int | None = None
    """Of the LoRA, if that is one after a step."""


@dataclass(frozen=True)
class GridRow:
    """One prompt, with samples from the same noise."""

    name: str
    prompt: str
    height: int
    width: int
    """Of each sample, in pixels."""
    fps: float
    cells: tuple[GridCell, ...]


def sample_rows(settings: Settings, samples: Mapping[str, SampleSpec], paths: ProjectPaths) -> list[GridRow]:
    """Return the rows of the sheet that compares strengths and LoRAs: one for each prompt and seed that is decoded.

    The first column is without the LoRA, if every prompt is sampled without it. There is no row if nothing is compared.

    Args:
        samples: by name.
    """
    sample = settings.sample
    columns = columns_of(sample, trains=bool(settings.datasets))
    if len(columns) < 2:
        return []
    titles, rows = row_titles(samples), []
    names = [name for prompt in sample.prompts for name in sample.seeds_of(prompt)]
    places = {column.suffix: column.label for column in columns}
    if all(name + BASE_SUFFIX in samples for name in names) and NO_LORA not in places.values():
        places = {BASE_SUFFIX: NO_LORA, **places}
    for name in names:
        spec = samples[name + columns[0].suffix]
        shown = OUTPUT_TYPES[spec.output_type][0]
        if shown.is_decoded:
            cells = [GridCell(shown.path(paths, name + end), label, name + end) for end, label in places.items()]
            rows.append(GridRow(name, titles[spec.name], spec.height, spec.width, spec.fps, tuple(cells)))
    return rows


def grid_rows(samples: Mapping[str, SampleSpec], paths: ProjectPaths, steps: Sequence[int]) -> list[GridRow]:
    """Return the rows of the sheet of checkpoints, one for each sample with the trained LoRA that is decoded.

    The first column is without the LoRA, if every prompt is sampled without it.

    Args:
        samples: by name.
        steps: whose LoRAs are compared, in order.
    """
    rows = []
    titles = {name: f"{_strength(name)}{title}" for name, title in row_titles(samples).items()}
    with_base = all(_base(name) in samples for name, spec in samples.items() if spec.lora_multiplier is not None)
    for name, spec in samples.items():
        shown = OUTPUT_TYPES[spec.output_type][0]
        if spec.lora_multiplier is None or not shown.is_decoded or not steps:
            continue
        base = [GridCell(shown.path(paths, _base(name)), NO_LORA, _base(name))] if with_base else []
        cells = [GridCell(shown.path(paths, name, step), f"step {step:,}", name, step) for step in steps]
        rows.append(GridRow(name, titles[name], spec.height, spec.width, spec.fps, (*base, *cells)))
    return rows


def row_titles(samples: Mapping[str, SampleSpec]) -> dict[str, str]:
    """Return what stands over a sample's row on a sheet, by name: its prompt, and its seed if it has several."""
    seeds: dict[str, set[int]] = {}
    for spec in samples.values():
        seeds.setdefault(spec.prompt, set()).add(spec.seed)
    return {
        name: f"seed {spec.seed}: {spec.prompt}" if len(seeds[spec.prompt]) > 1 else spec.prompt
        for name, spec in samples.items()
    }


def column_labels(rows: Sequence[GridRow]) -> list[str]:
    """Return the labels of the columns, which all rows share."""
    return [cell.label for cell in rows[0].cells]


def _base(name: str) -> str:
    """The name of the sample without the LoRA, which samples of all strengths share."""
    return row_name(name) + BASE_SUFFIX


def _strength(name: str) -> str:
    """What a title says of a sample's strength, by its name."""
    strength = name.partition(STRENGTH_SUFFIX)[2]
    return f"strength {strength}: " if strength else ""
