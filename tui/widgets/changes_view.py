"""Settings that differ between two configs."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.config_diff import Change
from tui.widgets.rows import Rows, cell


class ChangesView(Rows[Change]):
    """One line for each setting: before and after."""

    PART_NAME = "Changes"
    HELP = "Settings that differ, with the value before and the value after."

    def key(self, row: Change) -> Hashable:
        return row.path

    def draw(self, row: Change, width: int) -> Content:
        name = min(36, max(18, width * 2 // 5))
        return Content("").join(
            [
                cell(row.path, name, "bold"),
                cell(f" {row.old} → ", max(0, min(len(row.old) + 4, width - name)), "$error"),
            ]
        ) + Content.styled(row.new, "$success")
