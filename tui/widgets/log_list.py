"""The logs of a project, one line each, with the state of the job that writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.content import Content

from tui.data.jobs import Job
from tui.data.log_file import log_files
from tui.units import duration, size
from tui.widgets.rows import Rows, cell
from tui.widgets.states import colour_of, glyph


@dataclass(frozen=True)
class LogEntry:
    """One log."""

    label: str
    path: Path
    size: int
    modified: float
    """Seconds since 1970; 0 when there is no file yet."""
    state: str
    """The state of its job; "" if none is known."""


class LogListReader:
    """Lists the logs; used by one thread. `jobs` may be set by another one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs: Sequence[Job] = ()
        self._last: tuple[LogEntry, ...] | None = None

    def read(self) -> tuple[LogEntry, ...] | None:
        """Return all logs: of running and failed jobs first, then the newest, then empty ones; None: no change."""
        jobs = [job for job in self.jobs if str(job.state) != "waiting"]  # thousands may wait, without logs
        states = {self.root / log: str(job.state) for job in jobs for log in job.log}
        found = [_entry(label, path, states.get(path, "")) for label, path in log_files(self.root, jobs)]
        waiting = [entry for entry in found if not entry.modified]
        found = [entry for entry in found if entry.modified]
        found.sort(key=_order)
        entries = (*found, *waiting)
        if entries == self._last:
            return None
        self._last = entries
        return entries


def _order(entry: LogEntry) -> tuple[bool, bool, bool, float, str]:
    return entry.state != "running", entry.state != "failed", entry.size == 0, -entry.modified, entry.label


def _entry(label: str, path: Path, state: str) -> LogEntry:
    try:
        status = path.stat()
    except OSError:
        return LogEntry(label, path, 0, 0.0, state)
    return LogEntry(label, path, status.st_size, status.st_mtime, state)


class LogList(Rows[LogEntry]):
    """Chooses a log."""

    PART_NAME = "Logs"
    HELP = """All logs of this project: those of running and failed jobs first, then the newest. Moving here shows a
    log; enter goes into it."""

    def __init__(self, *, id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(id=id)
        self.empty = "no logs yet"
        self._clock = clock

    def key(self, row: LogEntry) -> Hashable:
        return row.path

    def draw(self, row: LogEntry, width: int) -> Content:
        sign = glyph(row.state) if row.state else " "
        age = f"{duration(max(0.0, self._clock() - row.modified))} ago" if row.modified else ""
        more = cell(size(row.size) if row.modified else "", 9, "$faint", right=True)
        if width >= 44:
            more = more + cell(age, 13, "$faint", right=True)
        return Content.assemble(
            (f"{sign} ", f"bold ${colour_of(row.state)}") if row.state else "  ",
            cell(row.label, max(4, width - 2 - more.cell_length)),
            more,
        )
