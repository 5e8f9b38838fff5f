"""Which samples stand where on the sheet of all checkpoints: a row for each prompt, a column for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.records.outputs import OUTPUT_TYPES
from hv15.records.paths import ProjectPaths
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec

NO_LORA = "no LoRA"
"""The title of a column of samples that no LoRA takes part in."""


@dataclass(frozen=True)
class GridCell:
    """One sample."""

    file: Path
    """Relative to the project folder."""
    step: int | None
    """Of the LoRA; None: without it."""


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


def grid_rows(samples: Mapping[str, SampleSpec], paths: ProjectPaths, steps: Sequence[int]) -> list[GridRow]:
    """Return the rows of a sheet, one for each prompt whose samples are decoded.

    The first column is without the LoRA, if every prompt is sampled without it.

    Args:
        samples: by name.
        steps: whose LoRAs are compared, in order.
    """
    rows = []
    titles = row_titles(samples)
    with_base = all(name + BASE_SUFFIX in samples for name, spec in samples.items() if spec.lora_multiplier is not None)
    for name, spec in samples.items():
        shown = OUTPUT_TYPES[spec.output_type][0]
        if spec.lora_multiplier is None or not shown.is_decoded or not steps:
            continue
        base = [GridCell(shown.path(paths, name + BASE_SUFFIX), None)] if with_base else []
        cells = [GridCell(shown.path(paths, name, step), step) for step in steps]
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
    return [NO_LORA if cell.step is None else f"step {cell.step:,}" for cell in rows[0].cells]
