"""`hv15 compare-trainings`: settings, curves, numbers and samples of trainings beside one another."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from hv15.atomic import check_writable
from hv15.commands.options.runs import CompareTrainings
from hv15.commands.options.stages import ExperimentsCompared
from hv15.comparison.groups import TrainingComparison
from hv15.comparison.judged import with_judged_samples
from hv15.comparison.page import PageTable, groups_table, summary, trainings_table
from hv15.comparison.places import named_trainings
from hv15.comparison.trainings import read_trainings
from hv15.errors import UserError
from hv15.records.comparison import ComparisonDetails
from hv15.records.comparison_paths import ComparisonPaths
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.paths import ProjectPaths
from hv15.records.spec import Spec
from hv15.terminal_text import one_line

TITLE = "Trainings compared"


def compare_trainings(options: CompareTrainings) -> None:
    """Print the table of some trainings and, if a folder is given, write everything about them into it.

    Raises:
        UserError: nothing was trained in a folder, a sample is damaged, or a file cannot be written.
    """
    places = named_trainings(options.folders or options.here)
    comparison = compared(places)
    for line in table_lines(comparison):
        print(one_line(line))
    if options.out is None:
        return
    from hv15.comparison.written import write_comparison

    check_writable(options.out)
    written = write_comparison(comparison, places, ComparisonPaths(options.out), title=TITLE)
    print(one_line(f"{written[0]}: {len(written)} files"), file=sys.stderr)


def compare_experiments(options: ExperimentsCompared) -> None:
    """Write the comparison of a project's experiments, as the planner has it in the spec.

    Raises:
        UserError: the spec is not that of a comparison, a sample is damaged, or a file cannot be written.
    """
    from hv15.comparison.written import write_comparison

    spec = Spec.read(options.spec)
    try:
        details = ComparisonDetails.from_json(spec.details)
    except RecordError as error:
        hint = "start the run again"
        raise UserError.at(options.spec, f"not the spec of a comparison: {error}", hint=hint) from error
    root = options.config.absolute().parent
    places = {name: ProjectPaths(root, name) for name in details.experiments}
    comparison = compared(places, details.settings)
    out = ComparisonPaths(options.out.parent)
    title = "Experiments"
    files = write_comparison(
        comparison, places, out, title=title, made_from=spec.wanted, has_samples=details.has_samples
    )
    if details.has_samples and out.film not in files:
        raise UserError.at(root, "the experiments have no samples from the same noise", hint="start the run again")
    print(one_line(summary(comparison)), file=sys.stderr)


def compared(
    places: Mapping[str, ProjectPaths], settings: Mapping[str, JsonObject] | None = None
) -> TrainingComparison:
    """Return trainings beside one another.

    Args:
        places: by name.
        settings: what no record of a training tells, by name and dotted name.

    Raises:
        UserError: a sample is damaged.
    """
    trainings = read_trainings(places, settings)
    return TrainingComparison(tuple(with_judged_samples(each, places[each.name]) for each in trainings))


def table_lines(comparison: TrainingComparison) -> Iterator[str]:
    """Yield the tables of a comparison as lines of text, and a sentence on it."""
    yield from _lines(trainings_table(comparison))
    if comparison.has_repetitions:
        yield ""
        yield from _lines(groups_table(comparison))
    yield ""
    yield summary(comparison)
    yield from comparison.notes


def _lines(table: PageTable) -> Iterator[str]:
    rows = [table.header, *(row.cells for row in table.rows)]
    widths = [max(len(row[place].text) for row in rows) for place in range(len(table.header))]
    for row, is_best in zip(rows, [False, *(row.is_best for row in table.rows)], strict=True):
        cells = [
            cell.text.rjust(width) if cell.is_number else cell.text.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        yield _line(cells, is_best=is_best)


def _line(cells: Sequence[str], *, is_best: bool) -> str:
    return f"{'  '.join(cells)}{'  (best)' if is_best else ''}".rstrip()
