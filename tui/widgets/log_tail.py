"""The last lines of a log, followed; the screen Logs has all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip

from tui.widgets.lines import Lines


class LogTail(Lines, can_focus=True):
    """Stays at the end until somebody scrolls up, and again once the end is back in view."""

    PART_NAME = "Log"
    HELP = """The end of a log: of the job under the cursor, of the one that runs, or of Snakemake itself. It follows
    while its end is shown. Enter opens the whole log with search and filter."""

    DEFAULT_CSS = """
    LogTail { background: $background; color: $foreground; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: Sequence[str] = ()
        self.path: Path | None = None
        self.empty = "no log yet"

    def show(self, path: Path | None, lines: Sequence[str], *, empty: str = "no log yet") -> None:
        """Show these lines, the last one at the bottom."""
        follow = path != self.path or self.is_vertical_scroll_end
        self.path, self.lines, self.empty = path, lines, empty
        self.virtual_size = Size(0, len(lines))
        if follow:
            self.call_after_refresh(self.scroll_end, animate=False)
        self.refresh()

    def on_resize(self) -> None:
        self.scroll_end(animate=False)

    def render_line(self, y: int) -> Strip:
        width, index = self.scrollable_content_region.width, self.scroll_offset.y + y
        if index < len(self.lines):
            text = Content(self.lines[index].expandtabs(4)).truncate(width, ellipsis=True)
            return Strip([Segment(text.plain, self.rich_style)]).adjust_cell_length(width, self.rich_style)
        text = Content(self.empty if not self.lines and y == 0 else "").truncate(width)
        return Strip([Segment(text.plain, self.rich_style)]).adjust_cell_length(width, self.rich_style)
