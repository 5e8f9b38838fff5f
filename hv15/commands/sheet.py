"""`hv15 stage sheet`: all samples of a project in one picture, and what the LoRA changed in one sentence."""

from __future__ import annotations

import sys

from hv15.commands.options.stages import SampleSheet
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.products import sheet_samples
from hv15.records.spec import Spec


def draw(options: SampleSheet) -> None:
    """Draw the contact sheet of all samples.

    Raises:
        UserError: fewer than two samples can be looked at, or one is missing or damaged.
    """
    from hv15.data.encode import write_image
    from hv15.demo.judge import what_changed
    from hv15.sample.contact_sheet import SheetRow, draw_sheet, mean_change, read_sample
    from hv15.sample.provenance import made_from_metadata

    project = Project(options.config, options.overrides)
    rows = []
    for name, (shown, without) in sheet_samples(project.samples, project.paths).items():
        base = None if without is None else read_sample(without)
        rows.append(SheetRow(project.sample(name).prompt, read_sample(shown), base))
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
