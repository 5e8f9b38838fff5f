"""The jobs of a run: what runs, what failed, what waits, what is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from textual.content import Content

from tui.data.jobs import Job, JobState
from tui.units import duration
from tui.widgets.rows import Rows, cell
from tui.widgets.states import colour_of, glyph

TIME, WORD = 8, 10


class JobsTable(Rows[Job]):
    """One line for each job."""

    PART_NAME = "Jobs"
    HELP = """The jobs of the run, as Snakemake plans and reports them: running ones first, then failed, waiting and
    finished ones. The cursor stays at the top until it is moved; home brings it back. Enter opens a
    job's log."""

    stays_on_top = True

    def __init__(self, *, id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(id=id)
        self._clock = clock

    def key(self, row: Job) -> Hashable:
        return row.id

    def draw(self, row: Job, width: int) -> Content:
        state = str(row.state)
        word = WORD if width >= 44 else 0
        reason = max(0, width - 76) if width >= 100 else 0
        name = width - 2 - TIME - word - (reason + 2 if reason else 0)
        parts = [
            Content.styled(f"{glyph(state)} ", f"bold ${colour_of(state)}"),
            cell((row.title or row.name) if reason else row.name, name - 1) + Content(" "),
            cell(state, word, f"${colour_of(state)}") if word else Content(""),
            cell(self._took(row), TIME, right=True),
        ]
        if reason:
            parts.append(cell("  " + row.reason, reason + 2, "$faint"))
        return Content("").join(parts)

    def _took(self, job: Job) -> str:
        if job.seconds is None and job.started is not None and job.state is JobState.RUNNING:
            return duration(max(0.0, self._clock() - job.started))
        return duration(job.seconds)

    def tick(self) -> None:
        """Advance the clocks of running jobs."""
        first = self.scroll_offset.y
        for index, job in enumerate(self.rows[first : first + self.size.height], start=first):
            if job.state is JobState.RUNNING:
                self.refresh_line(index)
