"""All projects, those of the queue first: state, progress, what they wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from textual.content import Content

from tui.data.projects import ProjectRow
from tui.units import duration
from tui.widgets.rows import Rows, cell
from tui.widgets.states import colour_of, glyph

_NUMBER, _STATE, _SINCE, _LEFT = 5, 14, 14, 9
HALF_DAY_S = 43_200.0


class ProjectsTable(Rows[ProjectRow]):
    """One line for each project. Those in the queue have its number, and those that wait there their place."""

    PART_NAME = "Projects"
    HELP = """All projects of the queue in its order, then others that are known: the one of this dashboard, and those
    that use the same store. O shows the one under the cursor in this dashboard, a adds it to the queue, x removes it or
    stops it, K and J move it, enter opens what its run printed."""

    def __init__(self, *, id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(id=id)
        self._clock = clock
        self.empty = "no project"

    def key(self, row: ProjectRow) -> Hashable:
        return row.number or row.config

    def header(self, width: int) -> Content | None:
        name, rest = self._widths(width)
        parts = [
            cell("no.", _NUMBER),
            cell("state", _STATE),
            cell("project", name),
            cell("since", _SINCE),
            cell("left", _LEFT, right=True),
        ]
        return Content("").join(parts) + cell("  progress", rest)

    def draw(self, row: ProjectRow, width: int) -> Content:
        name, rest = self._widths(width)
        words = f"{row.state} {row.place}" if row.waits else row.state
        said = [row.progress, row.note, ", ".join(row.devices)]
        return Content("").join(
            [
                cell(str(row.number or ""), _NUMBER),
                cell(f"{glyph(row.state)} {words}", _STATE, f"${colour_of(row.state)}"),
                cell(row.name, name - 1, "bold" if row.is_watched else ""),
                cell("", 1),
                cell(self._when(row.since), _SINCE),
                cell(duration(row.eta_s), _LEFT, right=True),
                cell(f"  {' · '.join(filter(None, said))}", rest, "$faint"),
            ]
        )

    def _when(self, seconds: float | None) -> str:
        if seconds is None:
            return ""
        form = "%H:%M:%S" if self._clock() - seconds < HALF_DAY_S else "%d %b %H:%M"
        return time.strftime(form, time.localtime(seconds))

    def _widths(self, width: int) -> tuple[int, int]:
        """The columns of the name, which is as long as the longest, and of the progress."""
        free = max(0, width - _NUMBER - _STATE - _SINCE - _LEFT)
        longest = max((len(row.name) + 2 for row in self.rows), default=12)
        name = max(min(longest, 40, free // 2), min(free, 12))
        return name, free - name
