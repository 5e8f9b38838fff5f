"""The samples of a project as a table: of prompts and steps of the training, or of prompts and LoRAs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hv15.config.sample_columns import NO_LORA
from hv15.records.outputs import enlarged
from hv15.sample.plan import BASE_SUFFIX
from tui.data.lora_names import THIS_LORA, name_of_loras
from tui.data.samples import Sample

FINAL = "final"
"""The column of the finished LoRA."""
ENLARGED = "super resolution"
"""The column of what super resolution makes of these."""
BEFORE, BETWEEN, AFTER = -1, 0, 1
"""Where a column stands: before all steps, among them, after them."""

Place = tuple[int, int]
"""Row and column."""


@dataclass(frozen=True)
class SampleMatrix:
    """The rows are prompts; a cell may hold several samples, the newest first."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: Mapping[Place, tuple[Sample, ...]] = field(default_factory=dict)
    asked: Mapping[Place, str] = field(default_factory=dict)
    """The cells that the config asks for, whether they are there or not -> the names of their samples."""

    def place_of(self, path: Path) -> tuple[Place, int] | None:
        """Return the cell of a file, and which of its samples it is; None if it is in none."""
        for place, samples in self.cells.items():
            for number, sample in enumerate(samples):
                if sample.path == path:
                    return place, number
        return None


def by_step(
    samples: Iterable[Sample], asked: Mapping[str, bool], made_larger: Collection[str] = frozenset()
) -> SampleMatrix:
    """Return prompts and steps: without the LoRA, after each step that was sampled, with the finished LoRA, and larger.

    Args:
        asked: the names of the samples that the config asks for -> whether also without the LoRA.
        made_larger: the names of those that it also asks to be made larger.
    """

    def column(sample: Sample) -> tuple[int, int, str] | None:
        if sample.kind == "again":
            return None
        if sample.kind == "base":
            return BEFORE, 0, NO_LORA
        if sample.kind == "enlarged":
            return larger
        return (AFTER, 0, FINAL) if sample.step is None else (BETWEEN, sample.step, f"step {sample.step:,}")

    last, larger = (AFTER, 0, FINAL), (AFTER, 1, ENLARGED)
    return _grid(samples, asked, _row_with_experiment, column, last, larger_ones={larger: made_larger})


def by_lora(samples: Iterable[Sample], asked: Mapping[str, bool], root: Path, *, trains: bool = True) -> SampleMatrix:
    """Return prompts and LoRAs: none, the project's, those of experiments and others, each at its strength.

    Args:
        asked: as for `by_step`.
        root: the project folder, by which a LoRA's file is known.
        trains: whether the project has a LoRA of its own.
    """

    def column(sample: Sample) -> tuple[int, int, str] | None:
        if sample.step is not None or sample.kind == "enlarged":  # super resolution has LoRAs of its own
            return None
        name = name_of_loras(sample, root)
        rank = 0 if name == NO_LORA else 1 if name == THIS_LORA else 2 if name.startswith(THIS_LORA) else 3
        return BETWEEN, rank, name

    listed = [*samples]
    finished = (BETWEEN, 1, THIS_LORA)
    if not trains:
        made = Counter(key for each in listed if each.kind == "final" and not each.is_sheet and (key := column(each)))
        finished = max(made, key=lambda key: (key[2] != NO_LORA, made[key], key), default=(AFTER, 0, FINAL))
    return _grid(listed, asked, lambda sample: sample.prompt_name, column, finished, first=0)


def _row_with_experiment(sample: Sample) -> str:
    return f"{sample.prompt_name} · {sample.experiment}" if sample.experiment else sample.prompt_name


def _grid(
    samples: Iterable[Sample],
    asked: Mapping[str, bool],
    row_of: Callable[[Sample], str],
    column_of: Callable[[Sample], tuple[int, int, str] | None],
    finished: tuple[int, int, str],
    *,
    first: int = BEFORE,
    larger_ones: Mapping[tuple[int, int, str], Collection[str]] | None = None,
) -> SampleMatrix:
    """Sort samples into rows (as in the config, then others by name) and columns (by their first parts).

    Args:
        finished: the column of the samples that the config asks for with the LoRA.
        first: where the column of those without a LoRA stands.
        larger_ones: the column of samples that are made larger -> the rows that have some.
    """
    shown = (sample for sample in samples if not sample.is_sheet)
    placed = [(row_of(sample), key, sample) for sample in shown if (key := column_of(sample)) is not None]
    base = (first, 0, NO_LORA)
    keys = {key for _, key, _ in placed}
    keys |= {finished} if asked else set()
    keys |= {base} if any(asked.values()) else set()
    further = {key: names for key, names in (larger_ones or {}).items() if names}
    keys |= further.keys()
    columns = sorted(keys, key=_by_strength)
    unasked = sorted({row for row, _, _ in placed} - asked.keys())
    rows = [*asked, *unasked]
    row_numbers, column_numbers = _numbers(rows), _numbers(columns)
    cells: dict[Place, tuple[Sample, ...]] = {}
    for row, key, sample in sorted(placed, key=lambda each: -each[2].mtime):
        place = row_numbers[row], column_numbers[key]
        cells[place] = (*cells.get(place, ()), sample)
    wanted = {(row_numbers[name], column_numbers[finished]): name for name in asked}
    wanted |= {
        (row_numbers[name], column_numbers[base]): name + BASE_SUFFIX for name, compared in asked.items() if compared
    }
    wanted |= {
        (row_numbers[name], column_numbers[key]): enlarged(name) for key, names in further.items() for name in names
    }
    return SampleMatrix(tuple(rows), tuple(title for _, _, title in columns), cells, wanted)


def _by_strength(column: tuple[int, int, str]) -> tuple[int, int, str, float, str]:
    """Sort the columns of one LoRA, `a at 0.5`, `a` and `a at 2`, by its strength."""
    place, rank, title = column
    name, _, strength = title.partition(" at ")
    try:
        return place, rank, name, float(strength.partition(" ")[0] or 1), title
    except ValueError:  # it is part of a file's name
        return place, rank, title, 1.0, title


def _numbers(names: Sequence[Hashable]) -> dict[Hashable, int]:
    return {name: number for number, name in enumerate(names)}
