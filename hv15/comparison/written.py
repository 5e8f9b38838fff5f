"""All files of a comparison: the page, the tables, the charts, the samples side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hv15.atomic import write_text
from hv15.comparison.charts import NAMES, make_charts, write_charts
from hv15.comparison.groups import TrainingComparison
from hv15.comparison.page import PageSamples, make_page, page_samples
from hv15.comparison.samples import SideBySide, draw_samples, find_samples, shown_trainings, side_by_side
from hv15.comparison.tables import groups_csv, latex_table, trainings_csv
from hv15.figures import PAPER_FORMATS
from hv15.records.comparison_paths import ComparisonPaths
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths


def write_comparison(
    comparison: TrainingComparison,
    places: Mapping[str, ProjectPaths],
    out: ComparisonPaths,
    *,
    title: str,
    made_from: JsonObject | None = None,
    has_samples: bool = True,
) -> list[Path]:
    """Write all files and return them; those of an earlier comparison that this one has not are removed.

    Args:
        places: of the trainings, by name.
        made_from: what the comparison depends on, to be written into the page, the sheet and the video.
        has_samples: whether samples are looked for, and drawn side by side.

    Raises:
        UserError: a sample is damaged, or a file cannot be written.
    """
    from hv15.sample.provenance import made_from_metadata

    labels = shown_trainings(comparison)
    shown = side_by_side(labels, {name: find_samples(places[name]) for name in labels}) if has_samples else None
    samples: PageSamples | None = None
    if shown is not None:
        metadata = {} if made_from is None else made_from_metadata(made_from)
        draw_samples(shown, out.sheet, out.film, metadata)
        samples = page_samples(_note(comparison, shown), out.film, out.sheet)
    charts = make_charts(comparison)
    drawn = write_charts(charts, out.charts)
    write_text(out.table, trainings_csv(comparison))
    write_text(out.groups, groups_csv(comparison))
    write_text(out.latex, latex_table(comparison))
    write_text(out.page, make_page(comparison, charts, title=title, samples=samples, made_from=made_from))
    pictures = [out.sheet, out.film] if shown is not None else []
    _remove_former(out, [*pictures, *drawn])
    return [out.page, out.table, out.groups, out.latex, *pictures, *drawn]


def _note(comparison: TrainingComparison, shown: SideBySide) -> str:
    """What the samples are of, in sentences."""
    parts = ["All samples of a row begin from the same noise."]
    if comparison.has_repetitions:
        parts.append("Of several seeds, the lowest is shown.")
    hidden = len(comparison.groups) - len(shown_trainings(comparison))
    if hidden:
        parts.append(f"{hidden} settings are not shown: those with the highest validation losses.")
    return " ".join([*parts, *([shown.left_out] if shown.left_out else [])])


def _remove_former(out: ComparisonPaths, written: Sequence[Path]) -> None:
    """Remove pictures of an earlier comparison."""
    charts = [(out.charts / name).with_suffix(suffix) for name in NAMES for suffix in PAPER_FORMATS]
    for file in (out.sheet, out.film, *charts):
        if file not in written:
            file.unlink(missing_ok=True)
