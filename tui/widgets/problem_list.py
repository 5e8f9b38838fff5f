"""What is wrong in the config, each with its place."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.config_file import Problem
from tui.data.terminal_text import visible
from tui.widgets.rows import Rows


class ProblemList(Rows[Problem]):
    """One line a problem; enter goes to its place."""

    HELP = "What is wrong in the config, with line and column. Enter goes there."

    def key(self, row: Problem) -> Hashable:
        return (row.line, row.column, row.path, row.message)

    def line(self, row: Problem, width: int) -> Content:
        return Content.assemble(
            (f"{row.line}:{row.column}", "bold $accent"),
            " ",
            (visible(row.path), "bold"),
            ": " if row.path else "",
            (visible(row.message), "$error"),
            (f"  ({row.hint})" if row.hint else "", "$faint"),
        )
