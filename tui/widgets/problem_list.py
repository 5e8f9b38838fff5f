"""What is wrong in the config, each with its place."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from hv15.records.problems import Problem, dotted
from hv15.terminal_text import visible
from tui.widgets.rows import Rows


class ProblemList(Rows[Problem]):
    """One line for each problem; enter goes to its place."""

    PART_NAME = "Problems"
    HELP = "What is wrong in the config, with line and column. Enter goes there."

    def key(self, row: Problem) -> Hashable:
        return row

    def draw(self, row: Problem, width: int) -> Content:
        place, setting = row.place, dotted(row.place.setting)
        where = f"{place.line}:{place.column or 1}" if place.line else place.file.name if place.file else ""
        return Content.assemble(
            (visible(where), "bold $accent"),
            " " if where else "",
            (visible(setting), "bold"),
            ": " if setting else "",
            (visible(row.message), "$error"),
            (visible(f"  ({row.hint})") if row.hint else "", "$faint"),
        )
