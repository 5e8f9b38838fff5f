"""The runs of a project: which one is alive, how the others ended, what changed in the config between them."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from hv15.runs import control, lock
from hv15.runs.record import RunFolder, history
from hv15.runs.state import RunState, RunStatus, status
from hv15.stamp import stamp
from tui.data.config_diff import Change, setting_changes


@dataclass(frozen=True)
class RunRow:
    """One run."""

    id: str
    state: RunState
    reason: str
    started: float | None
    ended: float | None
    seconds: float | None
    done: int
    total: int
    failed: int
    """Jobs that failed or were cut short."""
    targets: tuple[str, ...]
    host: str
    command: str
    folder: RunFolder
    changes: tuple[Change, ...] = ()
    """The settings that differ from those of the run before."""
    status: RunStatus | None = None

    @property
    def alive(self) -> bool:
        return self.state.alive


@dataclass(frozen=True)
class Orphan:
    """A process that a dead run left behind; it holds memory and the GPU."""

    pid: int
    command: str
    rss: int
    """Bytes."""
    started: float


class HistoryReader:
    """All runs of a project."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.rows: tuple[RunRow, ...] = ()
        """Newest first."""
        self.current: RunRow | None = None
        """The live run, else the last one."""
        self.orphans: tuple[Orphan, ...] = ()
        self.locked = False
        """Whether a killed run left Snakemake's lock."""
        self.error = ""
        self._clock = clock
        self._ended: dict[str, RunRow] = {}
        self._seen: tuple[tuple[object, ...], RunStatus] | None = None
        self._changes: dict[tuple[str, str], tuple[Change, ...]] = {}

    def refresh(self, full: bool = False) -> bool:
        """Read the lock and the newest run, or everything with `full`; return whether anything changed."""
        before = (self.rows, self.current, self.orphans, self.locked, self.error)
        try:
            self._read_runs(full or not self.rows)
            self.error = ""
        except OSError as error:
            self.error = f"{self.root}: cannot be read: {error.strerror}"
        return before != (self.rows, self.current, self.orphans, self.locked, self.error)

    def _current(self) -> RunStatus | None:
        """The newest status; files are read again only when one of them has changed."""
        holder = lock.holder(self.root)
        runs = [RunFolder(self.root, holder)] if holder else history(self.root)[:1]
        if not runs:
            return None
        files = (runs[0].events, runs[0].record_file, runs[0].stop)
        seen = (holder, runs[0].id, *map(stamp, files))
        if self._seen is None or self._seen[0] != seen or self._seen[1].state is RunState.ELSEWHERE:
            self._seen = (seen, status(runs[0], holder))
        return self._seen[1]

    def _read_runs(self, full: bool) -> None:
        found = self._current()
        if found is None:
            self.rows, self.current = (), None
        elif full or found.run.id not in {row.id for row in self.rows} or self._another_lives(found.run.id):
            self.rows = self._all(found)
            self.current = next((row for row in self.rows if row.id == found.run.id), None) or self._row(found)
        else:
            row = replace(self._row(found), changes=next(row.changes for row in self.rows if row.id == found.run.id))
            self.current = row
            self.rows = tuple(row if each.id == row.id else each for each in self.rows)
        self.locked = not (self.current and self.current.alive) and control.is_locked_by_snakemake(self.root)
        if full:
            self.orphans = tuple(each for process in control.orphans(self.root) if (each := _orphan(process)))

    def _another_lives(self, current_id: str) -> bool:
        return any(row.alive and row.id != current_id for row in self.rows)

    def _all(self, current: RunStatus) -> tuple[RunRow, ...]:
        holder = lock.holder(self.root)
        folders = history(self.root)
        rows = []
        for number, folder in enumerate(folders):
            row = self._row(current) if folder.id == current.run.id else self._ended.get(folder.id)
            if row is None:
                row = self._row(status(folder, holder))
                if not row.alive and row.host == socket.gethostname():  # one on another machine may write again
                    self._ended[folder.id] = row
            older = folders[number + 1] if number + 1 < len(folders) else None
            rows.append(replace(row, changes=self._changed(older, folder)))
        return tuple(rows)

    def _changed(self, older: RunFolder | None, newer: RunFolder) -> tuple[Change, ...]:
        if older is None:
            return ()
        pair = (older.id, newer.id)
        if pair not in self._changes:
            old, new = read_text(older.config), read_text(newer.config)
            same = old is None or new is None or old == new
            self._changes[pair] = () if same else tuple(setting_changes(old or "", new or ""))
        return self._changes[pair]

    def _row(self, found: RunStatus) -> RunRow:
        record = found.record
        end = found.ended if found.ended is not None else self._clock() if found.state.alive else None
        return RunRow(
            id=found.run.id,
            state=found.state,
            reason=found.reason,
            started=found.started,
            ended=found.ended,
            seconds=max(0.0, end - found.started) if end is not None and found.started is not None else None,
            done=found.done,
            total=found.total,
            failed=len(found.failed),
            targets=record.targets if record else (),
            host=record.host if record else "",
            command=shlex.join(record.command) if record else "",
            folder=found.run,
            status=found,
        )


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """Return a text file's beginning; what is not UTF-8 is replaced. None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def _orphan(process: psutil.Process) -> Orphan | None:
    try:
        with process.oneshot():
            command = shlex.join(process.cmdline()) or process.name()
            return Orphan(process.pid, command, process.memory_info().rss, process.create_time())
    except psutil.Error:
        return None
