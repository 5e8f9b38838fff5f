"""A comparison on one page, which needs no other file: tables that can be sorted, curves, samples that play.

Equal measurements give an equal page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.comparison.charts import ComparisonChart, chart_colours, colour_styles
from hv15.comparison.groups import Spread, TrainingComparison, TrainingGroup
from hv15.comparison.numbers import (
    PLAIN,
    STEPS,
    VALIDATION_BEST,
    MeasuredColumn,
    Scale,
    decimals,
    known_columns,
    number_text,
    spread_text,
)
from hv15.comparison.settings import SEED, in_words, short_name, value_text
from hv15.pages.html import render
from hv15.pages.inlined import Inliner
from hv15.pages.vector import SERIES, inline_svg
from hv15.records.json_values import Json, JsonObject

TEMPLATE = Path(__file__).parent / "templates" / "comparison.html"
SORTING = TEMPLATE.with_name("sorting.js")


@dataclass(frozen=True)
class PageCell:
    """One cell of a table."""

    text: str
    is_number: bool = False
    value: float | str | None = None
    """What it is sorted by; None: by its text."""
    is_mark: bool = False
    """Whether it is bold in the best row."""

    @property
    def classes(self) -> str:
        """Names of style."""
        return " ".join(name for name, used in (("number", self.is_number), ("mark", self.is_mark)) if used)


@dataclass(frozen=True)
class PageRow:
    """One row of a table."""

    cells: tuple[PageCell, ...]
    is_best: bool = False


@dataclass(frozen=True)
class PageTable:
    """One table."""

    title: str
    header: tuple[PageCell, ...]
    rows: tuple[PageRow, ...]
    note: str = ""


@dataclass(frozen=True)
class PageSamples:
    """The samples side by side, with their files as they stand on the page: inside it, or as links."""

    note: str
    film: str
    sheet: str
    linked: str
    """The names of files that are only linked; "" if there are none."""


@dataclass(frozen=True)
class PageChart:
    """One chart on the page."""

    title: str
    caption: str
    svg: str


def make_page(
    comparison: TrainingComparison,
    charts: Sequence[ComparisonChart],
    *,
    title: str,
    samples: PageSamples | None = None,
    made_from: JsonObject | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        made_from: what it depends on, to be written into it.
    """
    tables = [trainings_table(comparison)]
    if comparison.has_repetitions:
        tables.insert(0, groups_table(comparison))
    colours = {**SERIES, **chart_colours(comparison)}
    drawn = [
        PageChart(chart.title, f"{chart.caption}.", inline_svg(chart.figure, chart.name, chart.caption, colours))
        for chart in charts
    ]
    content = {
        "title": title,
        "summary": summary(comparison),
        "notes": comparison.notes,
        "tables": tables,
        "charts": drawn,
        "colours": colour_styles(comparison),
        "samples": samples,
    }
    return render(TEMPLATE, content, made_from, script=SORTING)


def summary(comparison: TrainingComparison) -> str:
    """Return in a sentence or two what is compared, and which one is the best."""
    count, groups = len(comparison.trainings), comparison.groups
    text = f"{count} training{'s' * (count != 1)}"
    if comparison.has_repetitions:
        some = "" if all(group.seeds > 1 for group in groups) else ", some"
        text += f", {len(groups)} setting{'s' * (len(groups) != 1)}{some} with several seeds"
    if comparison.differing:
        names = [short_name(name) for name in comparison.differing]
        text += (
            f", which differ in {', '.join(names)}" if len(names) <= 6 else f", which differ in {len(names)} settings"
        )
    best = comparison.best_group
    if best is not None and best.validation is not None:
        digits = decimals(VALIDATION_BEST, [group.validation for group in groups])
        found = spread_text(best.validation, digits)
        text += f". The lowest validation loss is that of {best.label}: {found}"
    return f"{text}."


def page_samples(note: str, film: Path, sheet: Path) -> PageSamples:
    """Return the samples of a page beside these files, which holds them as far as they are not too large.

    Raises:
        OSError: a file cannot be read.
    """
    inliner = Inliner(film.parent)
    film_url, sheet_url = inliner.url(film), inliner.url(sheet)
    return PageSamples(note, film_url, sheet_url, " and ".join(file.name for file in inliner.linked))


# -- tables ---------------------------------------------------------------------------------------------------------


def groups_table(comparison: TrainingComparison) -> PageTable:
    """Return the table with a row for each group: mean and deviation over its seeds.

    It names them if anything else on the page does so by more than the settings that stand in the row.
    """
    columns = _columns(comparison)
    is_named = any(group.label != in_words(group.settings) for group in comparison.groups)
    rows = []
    for group in comparison.groups:
        cells = [PageCell(group.label)] if is_named else []
        cells += [*(_setting(group.settings.get(name)) for name in comparison.differing), _seeds(group)]
        for column, scale, digits in columns:
            cells.append(_of_spread(column, column.of_group(group), digits, scale))
        rows.append(PageRow(tuple(cells), is_best=group is comparison.best_group))
    header = [PageCell("Experiment")] if is_named else []
    header += [PageCell(short_name(name)) for name in comparison.differing]
    counted = PageCell("Seeds", is_number=True)
    finished = ", of finished trainings alone" if comparison.leaves_out else ""
    note = f"Mean and standard deviation over the seeds{finished}. A click on a title sorts by it."
    return PageTable("Settings", (*header, counted, *_titles(columns)), tuple(rows), note)


def trainings_table(comparison: TrainingComparison) -> PageTable:
    """Return the table with a row for each training."""
    columns = _columns(comparison)
    has_seed = comparison.has_repetitions
    rows = []
    for each in comparison.trainings:
        cells = [PageCell(each.name), *(_setting(each.settings.get(name)) for name in comparison.differing)]
        if has_seed:
            cells.append(_setting(each.seed))
        for column, scale, digits in columns:
            value = column.value(each)
            shown = number_text(None if value is None else value * scale.factor, digits)
            shown += f" of {each.total_steps}" if column is STEPS and each.is_unfinished else ""
            cells.append(PageCell(shown, True, "" if value is None else value, column is VALIDATION_BEST))
        rows.append(PageRow(tuple(cells), is_best=each is comparison.best_training))
    header = [PageCell("Experiment"), *(PageCell(short_name(name)) for name in comparison.differing)]
    header += [PageCell(short_name(SEED), is_number=True)] if has_seed else []
    note = "The loss is the running mean after the last step. The time is that of the steps alone."
    return PageTable("Trainings", (*header, *_titles(columns)), tuple(rows), note)


def _columns(comparison: TrainingComparison) -> list[tuple[MeasuredColumn, Scale, int]]:
    """The columns that have numbers, with their units and their digits after the point."""
    found = []
    for column in known_columns(comparison.trainings):
        scale = column.scale(comparison.trainings)
        digits = decimals(column, map(column.of_group, comparison.groups), scale.factor)
        found.append((column, scale, digits))
    return found


def _titles(columns: Sequence[tuple[MeasuredColumn, Scale, int]]) -> list[PageCell]:
    return [
        PageCell(column.title if scale == PLAIN else f"{column.title}, {scale.unit}", is_number=True)
        for column, scale, _ in columns
    ]


def _of_spread(column: MeasuredColumn, found: Spread | None, digits: int, scale: Scale) -> PageCell:
    value = "" if found is None else found.mean
    return PageCell(column.text(found, digits, scale), True, value, column is VALIDATION_BEST)


def _seeds(group: TrainingGroup) -> PageCell:
    """How many trainings the means are of, and of how many."""
    count, every = len(group.counted), group.seeds
    return PageCell(str(count) if count == every else f"{count} of {every}", is_number=True, value=count)


def _setting(value: Json) -> PageCell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return PageCell(value_text(value), is_number, float(value) if isinstance(value, int | float) else None)
