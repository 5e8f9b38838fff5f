"""The table of a comparison as CSV, for programs, and as LaTeX, for a paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from hv15.comparison.groups import TrainingComparison, TrainingGroup
from hv15.comparison.numbers import (
    COLUMNS,
    PLAIN,
    PLUS_MINUS,
    VALIDATION_BEST,
    MeasuredColumn,
    Scale,
    decimals,
    known_columns,
)
from hv15.comparison.settings import SEED, short_name, value_text
from hv15.records.json_values import Json
from hv15.terminal_text import one_line

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "…": r"\dots{}",
}
_IN_PAPERS = (
    *("validation_best", "validation_last", "loss_last", "samples_right"),
    *("train_seconds", "memory_peak_bytes"),
)
"""The columns of the LaTeX table, by key."""


def trainings_csv(comparison: TrainingComparison) -> str:
    """Return a row for each training: its name, its group, the settings that differ, and all numbers in full."""
    header = ["name", "group", *comparison.differing, SEED, "total_steps", "device"]
    rows: list[list[Json]] = []
    for each in comparison.trainings:
        settings: list[Json] = [each.settings.get(name) for name in comparison.differing]
        known: list[Json] = [each.name, comparison.group_of(each).label, *settings, each.seed]
        rows.append([*known, each.total_steps or None, each.device, *(column.value(each) for column in COLUMNS)])
    return _csv([*header, *(column.key for column in COLUMNS)], rows)


def groups_csv(comparison: TrainingComparison) -> str:
    """Return a row for each group: its settings, the number of its trainings and of those that count in the means, mean
    and deviation of each number."""
    header = ["group", "trainings", "counted", *comparison.differing]
    header += [f"{column.key}_{what}" for column in COLUMNS for what in ("mean", "std")]
    rows: list[list[Json]] = []
    for group in comparison.groups:
        counts = (len(group.trainings), len(group.counted))
        row: list[Json] = [group.label, *counts, *map(group.settings.get, comparison.differing)]
        for column in COLUMNS:
            found = column.of_group(group)
            row += [None, None] if found is None else [found.mean, found.deviation]
        rows.append(row)
    return _csv(header, rows)


def latex_table(comparison: TrainingComparison) -> str:
    """Return a `tabular` with a row for each group, mean and standard deviation over its seeds, the best one bold."""
    columns = [column for column in known_columns(comparison.trainings) if column.key in _IN_PAPERS]
    scales = [column.scale(comparison.trainings) for column in columns]
    settings = comparison.differing or ("",)
    header = [*(_escaped(short_name(name)) or "Experiment" for name in settings)]
    header += [_escaped(_title(column, scale)) for column, scale in zip(columns, scales, strict=True)]
    digits = [
        decimals(column, map(column.of_group, comparison.groups), scale.factor)
        for column, scale in zip(columns, scales, strict=True)
    ]
    rows = []
    for group in comparison.groups:
        row = [_escaped(text) for text in _names(comparison, group)]
        for column, scale, count in zip(columns, scales, digits, strict=True):
            text = column.text(column.of_group(group), count, scale)
            row.append(_number(text, is_bold=column is VALIDATION_BEST and group is comparison.best_group))
        rows.append(row)
    body = "\n".join(f"{' & '.join(row)} \\\\" for row in rows)
    counts = sorted({len(group.counted) for group in comparison.groups if group.counted})
    over = f"mean and standard deviation over {' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds; "
    missing = (
        f"% not finished, so in no mean: {one_line(', '.join(comparison.unfinished))}\n"
        if comparison.leaves_out
        else ""
    )
    return (
        f"% {over if comparison.has_repetitions else ''}needs \\usepackage{{booktabs}}\n{missing}"
        f"\\begin{{tabular}}{{{'l' * len(settings)}{'r' * len(columns)}}}\n"
        f"\\toprule\n{' & '.join(header)} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _names(comparison: TrainingComparison, group: TrainingGroup) -> list[str]:
    """What stands at the beginning of a group's row."""
    if not comparison.differing or not group.settings:
        return [group.label, *[""] * (len(comparison.differing) - 1)]
    return [value_text(group.settings.get(name)) for name in comparison.differing]


def _title(column: MeasuredColumn, scale: Scale) -> str:
    return column.title if scale == PLAIN else f"{column.title} ({scale.unit})"


def _number(text: str, *, is_bold: bool) -> str:
    mean, sign, deviation = text.partition(f" {PLUS_MINUS} ")
    if not mean:
        return "--"
    shown = f"\\mathbf{{{mean}}}" if is_bold else mean
    return f"${shown} \\pm {deviation}$" if sign else f"${shown}$"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Json]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, header))
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Json) -> str:
    """Return a value as a cell; a text that a spreadsheet would compute begins with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False)
