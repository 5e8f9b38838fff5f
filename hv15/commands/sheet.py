"""`hv15 stage sheet` and `grid`: all samples of a project in one picture, and those of all checkpoints."""

from __future__ import annotations

import sys

from hv15.commands.options.stages import SampleGrid, SampleSheet
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.grids import GridRow, column_labels, row_titles
from hv15.project.products import sheet_samples
from hv15.records.fields import from_json
from hv15.records.json_values import RecordError, as_object
from hv15.records.spec import Spec


def draw(options: SampleSheet) -> None:
    """Draw the contact sheet of all samples.

    Raises:
        UserError: fewer than two samples can be looked at, or one is missing or damaged.
    """
    from hv15.data.encode import write_image
    from hv15.demo.judge import what_changed
    from hv15.sample.contact_sheet import SheetRow, draw_sheet, mean_change, read_few, read_sample
    from hv15.sample.provenance import made_from_metadata

    project = Project(options.config, options.overrides, experiment=options.experiment)
    rows = []
    titles = row_titles(project.samples)
    for name, files in sheet_samples(project.samples, project.enlarged, project.paths).items():
        base = None if files.without is None else read_sample(files.without)
        large = None if files.enlarged is None else read_few(files.enlarged)
        rows.append(SheetRow(project.sample(name).prompt, read_sample(files.shown), base, titles[name], large))
    if not rows:
        raise UserError.at(
            options.config,
            "fewer than two samples are videos or images, so there is nothing to compare",
            hint="add prompts to sample.prompts, or set sample.with_base: true",
        )
    sentence = what_changed(rows) if project.settings.models.source == "demo" else ""
    sentence = sentence or mean_change(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Description": sentence} if sentence else {}
    if options.spec is not None:
        metadata |= made_from_metadata(Spec.read(options.spec).wanted)
    write_image(options.out, draw_sheet(rows), metadata)
    print(sentence or f"{options.out}: {len(rows)} samples", file=sys.stderr)


def draw_checkpoints(options: SampleGrid) -> None:
    """Draw the samples of all checkpoints: a sheet of a few frames each, and a video in which all play together.

    Raises:
        UserError: the spec is not that of this stage, or a sample is missing or damaged.
    """
    from hv15.data.encode import write_image, write_video
    from hv15.sample.checkpoint_grid import draw_film, draw_grid, film_scale, read_line
    from hv15.sample.provenance import made_from_metadata

    project = Project(options.config, options.overrides, experiment=options.experiment)
    spec = Spec.read(options.spec)
    try:
        listed = spec.details.get("rows")
        rows = [from_json(GridRow, as_object(row)) for row in listed] if isinstance(listed, list) else []
    except RecordError as error:
        raise UserError.at(options.spec, f"not the spec of a grid: {error}", hint="start the run again") from error
    if not rows:
        raise UserError.at(options.spec, "not the spec of a grid", hint="start the run again")
    labels = column_labels(rows)
    scale = film_scale([(row.height, row.width) for row in rows], len(labels))
    lines = [read_line(row.prompt, (project.root / cell.file for cell in row.cells), row.fps, scale) for row in rows]
    metadata = made_from_metadata(spec.wanted)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_image(options.out, draw_grid(lines, labels), metadata)
    film, fps = draw_film(lines, labels)
    write_video(options.video, film, fps, metadata)
    print(f"{options.out}: {len(rows)} rows, {len(labels)} columns", file=sys.stderr)
