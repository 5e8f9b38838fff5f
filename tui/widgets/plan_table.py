"""What would run, and why: the jobs of a dry run."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.rerun import PlannedJob
from tui.widgets.rows import Rows, cell


class PlanTable(Rows[PlannedJob]):
    """One line a job, with its reason in plain words."""

    HELP = "What would run if the workflow was started now, each job with its reason. Asked of Snakemake by a dry run."

    def key(self, row: PlannedJob) -> Hashable:
        return row.id

    def line(self, row: PlannedJob, width: int) -> Content:
        name = min(34, max(16, width * 2 // 5))
        return cell(row.title, name) + cell("  " + row.reason, width - name, "$faint")
