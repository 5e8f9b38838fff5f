"""What would run, and why."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from hv15.records.reasons import DueStage
from hv15.terminal_text import visible
from tui.widgets.rows import Rows, cell


class PlanTable(Rows[DueStage]):
    """One line for each job, with its reasons."""

    PART_NAME = "What would run"
    HELP = """What would run if the workflow were started now, each job with its reasons, as in `hv15 why`. If they are
    too long for the line, those of the job under the cursor stand below, whole."""

    def key(self, row: DueStage) -> Hashable:
        return row.name

    def draw(self, row: DueStage, width: int) -> Content:
        name = name_width(width)
        return cell(row.title, name) + cell("  " + reasons_in_one_line(row), width - name, "$faint")

    def is_cut(self, row: DueStage, width: int) -> bool:
        """Whether the reasons of a row do not fit into its line."""
        return Content(visible("  " + reasons_in_one_line(row))).cell_length > width - name_width(width)


def name_width(width: int) -> int:
    """Return the columns of a job's title in a line of `width` columns."""
    return min(34, max(16, width * 2 // 5))


def reasons_in_one_line(stage: DueStage) -> str:
    """Return all reasons of a job as one line."""
    return "; ".join(stage.reasons)
