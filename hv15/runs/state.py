"""The state of a run, read from the lock, its record and its last events."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import psutil

from hv15.records.events import (
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobsPlanned,
    RunDied,
    RunEnded,
    RunEvent,
    RunRecord,
    read_event,
)
from hv15.records.failures import Failure, FailureKind, saved_step
from hv15.records.fields import NewerVersion
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object
from hv15.runs import lock
from hv15.runs.followed_file import CHUNK, END, last_objects
from hv15.runs.foreign_messages import facts, failure_of_run
from hv15.runs.metrics import keep_metrics, kept_files, training_files
from hv15.runs.record import RunFolder, append_event, history

SILENT_S = 120.0
"""A run on another machine that has written nothing for this long is probably dead."""
RESTART_S = 60.0
"""Two readings of the machine's start time differ by less."""

Event = TypeVar("Event", bound=RunEvent)


class RunState(StrEnum):
    """What a run does, or how it ended."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"
    ELSEWHERE = "elsewhere"
    """On another machine, which cannot be asked from here; it has written something recently."""
    UNREADABLE = "unreadable"
    """Its records are of an unknown version."""

    @property
    def alive(self) -> bool:
        return self in (RunState.STARTING, RunState.RUNNING, RunState.STOPPING, RunState.ELSEWHERE)


@dataclass(frozen=True)
class FailedJob:
    """A job that has failed, or was stopped."""

    job: JobDetails
    failure: Failure | None
    """What it recorded itself; None if it could not."""

    @property
    def stopped(self) -> bool:
        return self.failure is not None and self.failure.kind is FailureKind.STOPPED


@dataclass(frozen=True)
class RunStatus:
    """One run as it is now."""

    run: RunFolder
    record: RunRecord | None
    state: RunState
    reason: str
    """Why it is in this state, in one sentence; "" when there is nothing to add."""
    done: int = 0
    total: int = 0
    """Jobs."""
    failed: tuple[FailedJob, ...] = ()
    """Each once; also those that were stopped, but not those that were tried again and done."""
    failure: Failure | None = None
    """Why the workflow could not be planned."""
    ended: float | None = None
    """Seconds since 1970."""

    @property
    def started(self) -> float | None:
        return self.record.started if self.record else None

    @property
    def saved_step(self) -> int | None:
        """The step that a training had saved when it was stopped."""
        return saved_step(each.failure for each in self.failed)

    def as_json(self) -> JsonObject:
        """Return what `hv15 status --json` says of the run."""
        record = self.record
        jobs: JsonObject = {"done": self.done, "total": self.total, "failed": len(self.failed)}
        return {
            "id": self.run.id,
            "state": self.state.value,
            "reason": self.reason,
            "saved_step": self.saved_step,
            "jobs": jobs,
            "failures": [_failure_json(each) for each in self.failed],
            "started": self.started,
            "ended": self.ended,
            "pid": record.pid if record else None,
            "host": record.host if record else None,
            "command": list(record.command) if record else None,
            "folder": str(self.run.path),
        }


def _failure_json(failed: FailedJob) -> Json:
    said = failed.failure
    return {
        "rule": failed.job.rule,
        "job": failed.job.name,
        "log": failed.job.log[0] if failed.job.log else None,
        "kind": said.kind.value if said else None,
        "cause": said.cause if said else None,
        "cure": said.cure if said else None,
        "place": said.place if said else None,
    }


def current(root: Path) -> RunStatus | None:
    """Return the run that is alive, else the last one; None when there was none yet."""
    running = lock.holder(root)
    runs = [RunFolder(root, running)] if running else history(root)[:1]
    return status(runs[0], running) if runs else None


def status(run: RunFolder, holder: str | None) -> RunStatus:
    """Return a run's status. When it is first found dead, that is recorded, so that later reads give the same end.

    Args:
        holder: what `lock.holder` says of its project.
    """
    record, trouble = _read_record(run)
    lines = list(last_objects(run.events))
    state = RunState.UNREADABLE if trouble else RunState.DIED
    found = RunStatus(
        run, record, state, trouble or "it left no record", *_counts(lines), failed=_failed_jobs(run.events)
    )
    if holder is not None and holder == run.id:
        state = RunState.STOPPING if run.stop.exists() else RunState.RUNNING if lines else RunState.STARTING
        return replace(found, state=state, reason=trouble)
    if end := _last(lines, RunEnded):
        state, reason = _ending(found, end)
        return replace(found, state=state, reason=reason, failure=end.failure, ended=end.time)
    if died := _last(lines, RunDied):
        state = RunState.STOPPED if run.stop.exists() else RunState.DIED
        return replace(found, state=state, reason=died.reason, ended=died.time)
    if record is None:
        return found
    # A run that began after its lock was looked at is not dead.
    again = lock.holder(run.root) if holder != run.id else None
    return status(run, again) if again == run.id else _without_end(found, record)


def close_last_run(root: Path) -> None:
    """Record how a project's last run ended, and keep its metrics, before another begins: it may have died."""
    for run in history(root)[:1]:
        status(run, None)
        keep_metrics(run)


def _read_record(run: RunFolder) -> tuple[RunRecord | None, str]:
    """The content of run.json, or why it cannot be read; neither if it is missing or torn."""
    try:
        return run.read_record(), ""
    except NewerVersion as error:
        return None, f"run.json {error}"
    except (OSError, RecordError):
        return None, ""


def _counts(lines: Sequence[JsonObject]) -> tuple[int, int]:
    """Jobs that are done, and all of them."""
    if last := _last(lines, RunEnded) or _last(lines, JobsCounted):
        return last.done, last.total
    planned = _last(lines, JobsPlanned)  # what a run counts is first told when a job is done
    return (0, planned.total) if planned else (0, 0)


def _failed_jobs(events: Path) -> tuple[FailedJob, ...]:
    """The jobs that have failed, wherever in the file that is: hundreds of others may have run since."""
    found = dict[int, FailedJob]()
    with contextlib.suppress(OSError), events.open("rb") as file:
        for line in iter(lambda: file.readline(CHUNK), b""):
            if not (line.startswith(_FAILED) or (found and line.startswith(_DONE))):
                continue
            with contextlib.suppress(RecordError):
                event = read_event(parse_object(line))
                if isinstance(event, JobFailed):
                    found[event.job.id] = FailedJob(event.job, event.failure)
                elif isinstance(event, JobDone):
                    found.pop(event.id, None)  # it was tried again
    return tuple(found.values())


_FAILED, _DONE = (f'{{"event": "{kind.event}"'.encode() for kind in (JobFailed, JobDone))
"""The beginnings of these events' lines."""
_SIGNALS = {"SIGINT": "by Ctrl-C", "SIGHUP": "because its terminal was closed", "SIGTERM": "by SIGTERM"}


def _ending(found: RunStatus, end: RunEnded) -> tuple[RunState, str]:
    """How a run that recorded its end has ended, and why."""
    if not (end.failed or end.error or end.failure) and end.done == end.total:
        return RunState.FINISHED, "" if end.total else "there was nothing to do"
    stopped = "on request" if found.run.stop.exists() else _SIGNALS.get(end.signal, "")
    if not stopped and found.failed and all(each.stopped for each in found.failed):
        stopped = "because its jobs were asked to stop"
    if stopped:
        saved = f"; the training saved its state after step {found.saved_step}" if found.saved_step else ""
        return RunState.STOPPED, stopped + saved
    if end.failed:
        return RunState.FAILED, f"{len(end.failed)} job{'s' * (len(end.failed) > 1)} failed"
    if end.failure:
        return RunState.FAILED, end.failure.cause.splitlines()[0]
    return RunState.FAILED, next(iter(facts(end.error)), f"{end.done} of {end.total} jobs are done")


def _without_end(found: RunStatus, record: RunRecord) -> RunStatus:
    """The status of a run that did not record its end; on another machine it may still run."""
    run, last = found.run, _last_write(found.run)
    if record.host != socket.gethostname():
        silence = max(0.0, time.time() - last)  # the other machine's clock may be ahead
        if silence < SILENT_S:
            reason = f"it was started on {record.host} and wrote something {silence:.0f} s ago"
            return replace(found, state=RunState.ELSEWHERE, reason=reason)
        reason = f"it was started on {record.host} and has written nothing for {silence / 60:.0f} minutes"
        return replace(found, state=RunState.DIED, reason=reason, ended=last)
    state = RunState.DIED
    if was_before_restart(record):
        reason = "the machine was restarted"
    elif run.stop.exists():
        state, reason = RunState.STOPPED, "killed on request" if _was_to_be_killed(run) else "on request"
    elif not run.events.exists():
        reason = _before_planning(run)
    else:
        reason = "it was killed from outside (kill -9, or the machine ran out of memory)"
    with contextlib.suppress(OSError):
        append_event(run.events, RunDied(reason=reason, time=last))
    return replace(found, state=state, reason=reason, ended=last)


def _was_to_be_killed(run: RunFolder) -> bool:
    """Whether somebody asked for the run's end at once. One that is asked to stop early records no end either."""
    return any(content.get("now") is True for content in last_objects(run.stop))


def _before_planning(run: RunFolder) -> str:
    """Why a run ended of which Snakemake recorded nothing."""
    said: list[str] = []
    with contextlib.suppress(OSError), run.output.open("rb") as file:
        file.seek(max(0, run.output.stat().st_size - END))
        said = file.read(END).decode(errors="replace").splitlines()
    failure = failure_of_run(said, "")
    if failure.kind is FailureKind.USER:
        return f"it ended before it had planned anything: {failure.cause.splitlines()[0]}"
    return "it ended before it had planned anything; its output says why"


def was_before_restart(record: RunRecord) -> bool:
    """Whether this machine was restarted after a run began."""
    booted: float = psutil.boot_time()
    return abs(booted - record.boot_time) > RESTART_S and booted > record.started


def _last_write(run: RunFolder) -> float:
    """When a run last wrote something: its own files and, until another run begins, the metrics of its trainings."""
    files = [run.events, run.output, run.record_file, *(path for _, path in kept_files(run))]
    if history(run.root)[:1] == [run]:
        files += [path for _, path in training_files(run.root)]
    times = [0.0]
    for path in files:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def all_events(path: Path) -> list[RunEvent]:
    """Return all events of a file, oldest first; [] when it cannot be read."""
    with contextlib.suppress(OSError):
        return _events(last_objects(path, path.stat().st_size))
    return []


def _events(lines: Iterable[JsonObject]) -> list[RunEvent]:
    found = []
    for content in lines:
        with contextlib.suppress(RecordError):
            if event := read_event(content):
                found.append(event)
    return found


def _of_kind(lines: Iterable[JsonObject], kind: type[Event]) -> Iterator[Event]:
    """The events of a kind. Only these are parsed: 100 runs have hundreds of lines each."""
    for content in lines:
        if content.get("event") == kind.event:
            with contextlib.suppress(RecordError):
                event = read_event(content)
                if isinstance(event, kind):
                    yield event


def _last(lines: Sequence[JsonObject], kind: type[Event]) -> Event | None:
    return next(_of_kind(reversed(lines), kind), None)
