"""What became of a run: read from the lock, its record and the last line of its events."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from hv15.runs import lock
from hv15.runs.record import RunFolder, RunRecord, history

TAIL = 64 * 1024
SILENT_S = 120.0
"""A run on another machine that has written nothing for so long is probably dead."""


class State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"
    ELSEWHERE = "elsewhere"
    """On another machine, which cannot be asked from here; it wrote something lately."""

    @property
    def alive(self) -> bool:
        return self in (State.STARTING, State.RUNNING, State.STOPPING, State.ELSEWHERE)


@dataclass(frozen=True)
class RunStatus:
    """One run as it is now."""

    run: RunFolder
    record: RunRecord | None
    state: State
    reason: str
    """In one sentence why the state is this one; "" when there is nothing to add."""
    done: int = 0
    total: int = 0
    """Jobs."""
    failed: int = 0
    ended: float | None = None
    """Seconds since 1970."""

    @property
    def started(self) -> float | None:
        return self.record.started if self.record else None

    def as_json(self) -> dict[str, Any]:
        """Return what `hv15 status --json` says of the run."""
        record = self.record
        return {
            "id": self.run.id,
            "state": self.state.value,
            "reason": self.reason,
            "jobs": {"done": self.done, "total": self.total, "failed": self.failed},
            "started": self.started,
            "ended": self.ended,
            "pid": record.pid if record else None,
            "host": record.host if record else None,
            "command": record.command if record else None,
            "folder": str(self.run.path),
        }


def current(root: Path) -> RunStatus | None:
    """Return the run that is alive, else the last one; None when there was none yet."""
    running = lock.holder(root)
    runs = [RunFolder(root, running)] if running else history(root)[:1]
    return status(runs[0], running) if runs else None


def status(run: RunFolder, holder: str | None) -> RunStatus:
    """Return a run's status; `holder` is what `lock.holder` says of its project."""
    record, last = run.record(), last_events(run.events)
    end = next((event for event in reversed(last) if event["event"] == "end"), None)
    progress: dict[str, Any] = end or next((event for event in reversed(last) if event["event"] == "progress"), {})
    counts = {
        "done": _count(progress.get("done")),
        "total": _count(progress.get("total")),
        "failed": len(end.get("failed") or ())
        if end
        else len({str(event.get("id")) for event in last if event["event"] == "failed"}),
    }
    if holder is not None and holder == run.id:
        state = State.STOPPING if run.stop.exists() else State.RUNNING if last else State.STARTING
        return RunStatus(run, record, state, "", **counts)
    if end is not None:
        state, reason = _ending(run, end)
        return RunStatus(run, record, state, reason, **counts, ended=end.get("time"))
    state, reason = _without_end(run, record)
    return RunStatus(run, record, state, reason, **counts, ended=None if state.alive else _last_write(run))


def _ending(run: RunFolder, end: dict[str, Any]) -> tuple[State, str]:
    failed, error = end.get("failed") or [], str(end.get("error") or "").strip()
    if not failed and not error and end.get("done") == end.get("total"):
        return State.FINISHED, "" if end.get("total") else "there was nothing to do"
    if run.stop.exists():
        return State.STOPPED, "on request; the same start goes on from there"
    if failed:
        return State.FAILED, f"{len(failed)} job{'s' * (len(failed) > 1)} failed"
    if not error or "KeyboardInterrupt" in error:
        return State.STOPPED, "by Ctrl-C or a signal"
    return State.FAILED, _first_fact(error)


def _first_fact(error: str) -> str:
    """The first line of an error that says more than its kind and place."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return next((line for line in lines if not re.match(r"\w*(Error|Exception)\b.*:$", line)), lines[0])


def _without_end(run: RunFolder, record: RunRecord | None) -> tuple[State, str]:
    if record is None:
        return State.DIED, "it left no record"
    if record.host != socket.gethostname():
        silence = time.time() - _last_write(run)
        if silence < SILENT_S:
            return State.ELSEWHERE, f"it was started on {record.host} and wrote something {silence:.0f} s ago"
        return State.DIED, f"it was started on {record.host} and has written nothing for {silence / 60:.0f} minutes"
    if abs(psutil.boot_time() - record.boot_time) > 60 and psutil.boot_time() > record.started:
        return State.DIED, "the machine was restarted"
    if run.stop.exists():
        return State.STOPPED, "killed on request"
    return State.DIED, "it was killed from outside (kill -9, or the machine ran out of memory)"


def _last_write(run: RunFolder) -> float:
    """When the run last wrote something: its events, its output, or the metrics of its training."""
    times = [0.0]
    for path in (run.events, run.output, run.path / "run.json", run.root / "results/train/metrics.jsonl"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def last_events(path: Path) -> list[dict[str, Any]]:
    """Return the events among the last 64 KiB of a file, oldest first; [] when it cannot be read."""
    return [line for line in last_lines(path) if isinstance(line.get("event"), str)]


def last_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole JSON objects among the last 64 KiB of a .jsonl file, oldest first; [] when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
