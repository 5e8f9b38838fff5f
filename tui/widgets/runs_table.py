"""The runs of a project, newest first, with how they ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from textual.content import Content

from tui.data.history import RunRow
from tui.units import duration
from tui.widgets.rows import Rows, cell
from tui.widgets.states import colour_of, glyph


class RunsTable(Rows[RunRow]):
    """One line for each run. A sign marks the runs whose curves are overlaid."""

    PART_NAME = "Runs"
    HELP = """All runs of this project that are kept. Space overlays a run's curves on Charts, enter opens its output.
    Changes in the config since the run before are beside it."""

    def __init__(self, *, id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(id=id)
        self._clock = clock
        self.taken: dict[str, str] = {}
        """Runs whose curves are overlaid, and the sign of the first of them."""
        self.empty = "no run yet"

    def key(self, row: RunRow) -> Hashable:
        return row.id

    def header(self, width: int) -> Content | None:
        parts = [
            cell("", 2),
            cell("started", 16),
            cell("state", 12),
            cell("took", 9, right=True),
            cell("jobs", 10, right=True),
        ]
        return Content("").join(parts) + cell("  changed since the run before", max(0, width - 49))

    def draw(self, row: RunRow, width: int) -> Content:
        state = str(row.state)
        started = time.strftime("%d %b %H:%M:%S", time.localtime(row.started)) if row.started else row.id
        took = row.seconds
        if row.alive and row.started:
            took = max(0.0, self._clock() - row.started)
        mark = "cut short" if str(row.state) in ("stopping", "stopped") else "failed"
        failed = f" {glyph(mark)}{row.failed}" if row.failed else ""
        changes = ", ".join(f"{change.path} {change.old} → {change.new}" for change in row.changes)
        return Content("").join(
            [
                cell(self.taken.get(row.id, ""), 2, "bold $accent"),
                cell(started, 16),
                cell(f"{glyph(state)} {state}", 12, f"${colour_of(state)}"),
                cell(duration(took), 9, right=True),
                cell(f"{row.done}/{row.total}{failed}" if row.total else "", 10, right=True),
                cell("  " + changes, max(0, width - 49), "$faint"),
            ]
        )
