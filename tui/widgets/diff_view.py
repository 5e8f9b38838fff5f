"""Lines that were added and removed, with their signs."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.config_diff import DiffLine
from tui.widgets.rows import Rows, cell

COLOURS = {"+": "$success", "-": "$error", "@": "$faint", " ": ""}


class DiffView(Rows[DiffLine]):
    """One row for each line of the diff, with its line number in the newer text."""

    PART_NAME = "Differences"
    HELP = "What differs. + is in the config that is edited, - in the other one. Enter goes to the line."

    def key(self, row: DiffLine) -> Hashable:
        return (row.sign, row.old_line, row.new_line)

    def draw(self, row: DiffLine, width: int) -> Content:
        number = row.new_line if row.new_line is not None else row.old_line
        if row.sign == "@":
            return Content.styled(f"   … from line {number}", "$faint")
        text = cell(f"{row.sign} {row.text}", width - 5, COLOURS[row.sign])
        return cell(f"{number or ''}", 4, "$faint", right=True) + Content(" ") + text
