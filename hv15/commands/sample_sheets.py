"""The sheets of `hv15 sample`: its samples side by side, as one picture and as one video in which all play together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hv15.digest import digest, short
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.comparison import ComparedRow, Table
from hv15.project.metadata import product_made_from
from hv15.records import formats
from hv15.records.json_values import JsonObject
from hv15.sample.prompts import SampleSpec

MOST_ROWS = 16
"""Rows of a sheet; more make a second one."""


def check_viewable(table: Table) -> None:
    """Check that there is something to see on a sheet of these samples.

    Raises:
        UserError: there is not.
    """
    if not table.viewable().rows:
        raise UserError(
            "a sheet shows videos or images, but all of these samples are latents",
            hint="set --output-type video or both, or leave out --sheet and what is compared",
        )


def draw_sheets(
    project: Project, table: Table, out: Path, shown: Callable[[SampleSpec], Path], *, tells: bool = True
) -> Iterator[Path]:
    """Draw all samples of a table, and yield the files; those that are there already are not drawn again.

    Args:
        out: the folder of the sheets.
        shown: returns the file of a sample that people look at.
        tells: whether the files say what they were made from. If not, their names do.

    Raises:
        UserError: as `check_viewable`, or a sample is missing or damaged.
    """
    check_viewable(table)
    seen = table.viewable().by_seed()
    pages = [seen.rows[start : start + MOST_ROWS] for start in range(0, len(seen.rows), MOST_ROWS)]
    name = f"sheet-{short(_made_from(project, seen.columns, seen.rows))[:8]}"
    for number, rows in enumerate(pages):
        place = out / (name if len(pages) == 1 else f"{name}-{number + 1}")
        yield from _draw(seen.columns, rows, place, shown, _made_from(project, seen.columns, rows), tells=tells)


def _made_from(project: Project, columns: tuple[str, ...], rows: tuple[ComparedRow, ...]) -> JsonObject:
    """What a sheet is made from: what is written on it, and what its samples are made from."""
    text = project.texts.settings_digest
    cells = [[row.title, *(digest(spec.decoding(None, text)) for spec in row.samples)] for row in rows]
    return {"format": formats.GRID, "columns": [*columns], "rows": [[*row] for row in cells]}


def _draw(
    columns: tuple[str, ...],
    rows: tuple[ComparedRow, ...],
    place: Path,
    shown: Callable[[SampleSpec], Path],
    made_from: JsonObject,
    *,
    tells: bool,
) -> Iterator[Path]:
    """Draw one sheet, without a suffix in its name, as a picture and as a video."""
    from hv15.data.encode import write_image, write_video
    from hv15.sample.checkpoint_grid import draw_film, draw_grid, film_scale, read_line
    from hv15.sample.provenance import made_from_metadata

    picture, video = place.with_suffix(".png"), place.with_suffix(".mp4")
    if not all(product_made_from(file) == made_from if tells else file.exists() for file in (picture, video)):
        scale = film_scale([(row.samples[0].height, row.samples[0].width) for row in rows], len(columns))
        lines = [read_line(row.title, map(shown, row.samples), row.samples[0].fps, scale) for row in rows]
        metadata = made_from_metadata(made_from) if tells else {}
        write_image(picture, draw_grid(lines, columns), metadata)
        film, fps = draw_film(lines, columns)
        write_video(video, film, fps, metadata)
    yield from (picture, video)
