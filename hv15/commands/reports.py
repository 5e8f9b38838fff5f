"""`hv15 stage report` and `card`: all results on one page, and the model card."""

from __future__ import annotations

import sys

from hv15.atomic import write_text
from hv15.commands.options.stages import ReportPage, WriteCard
from hv15.project import Project
from hv15.records.json_values import JsonObject
from hv15.records.spec import Spec
from hv15.terminal_text import one_line
from hv15.units import size


def write_report(options: ReportPage) -> None:
    """Write the page of a project's results.

    Raises:
        UserError: the LoRA or a sample is missing or damaged.
    """
    from hv15.report.page import ResultsPage, is_grid_of

    project = Project(options.config, options.overrides, experiment=options.experiment)
    wanted: JsonObject | None = None if options.spec is None else Spec.read(options.spec).wanted
    grid = None if wanted is None else wanted.get("grid")
    page = ResultsPage(project, options.out, grid=isinstance(grid, str) and is_grid_of(project, grid))
    write_text(options.out, page.text(wanted))
    linked = f", {page.linked} files linked" if page.linked else ""
    print(f"{one_line(str(options.out))}: {size(options.out.stat().st_size)}{linked}", file=sys.stderr)


def write_card(options: WriteCard) -> None:
    """Write the model card of a project's LoRA.

    Raises:
        UserError: the LoRA is missing or damaged.
    """
    from hv15.report.card import ModelCard

    wanted: JsonObject | None = None if options.spec is None else Spec.read(options.spec).wanted
    write_text(
        options.out, ModelCard(Project(options.config, options.overrides, experiment=options.experiment)).text(wanted)
    )
    print(f"{one_line(str(options.out))}: the model card", file=sys.stderr)
