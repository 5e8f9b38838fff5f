"""What would run, and why."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from hv15.records.reasons import DueStage
from tui.widgets.rows import Rows, cell


class PlanTable(Rows[DueStage]):
    """One line for each job, with its reasons."""

    PART_NAME = "What would run"
    HELP = "What would run if the workflow were started now, each job with its reasons, as in `hv15 why`."

    def key(self, row: DueStage) -> Hashable:
        return row.name

    def draw(self, row: DueStage, width: int) -> Content:
        name = min(34, max(16, width * 2 // 5))
        return cell(row.title, name) + cell("  " + "; ".join(row.reasons), width - name, "$faint")
