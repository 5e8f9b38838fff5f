"""Whether a run goes on, seen from outside: by its events, output, logs of jobs and steps of trainings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from hv15.records.events import JobDetails, JobDone, JobFailed, JobStarted, read_event
from hv15.records.json_values import RecordError, parse_object
from hv15.records.paths import ProjectPaths
from hv15.runs.followed_file import FollowedLines
from hv15.runs.metrics import STALL_STEPS, trainings_progress
from hv15.runs.record import RunFolder

_Stamp = tuple[str, int, int]
"""A file, its size and when it was written, in nanoseconds."""


class SignsOfLife:
    """One run. Only that a file changes is looked at, not when: clocks differ, and a machine may sleep for hours."""

    def __init__(self, run: RunFolder, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._run, self._monotonic = run, monotonic
        self._events = FollowedLines(run.events)
        self._jobs: dict[int, JobDetails] = {}
        self._stamps: list[_Stamp] = []
        self._since = monotonic()

    @property
    def running(self) -> tuple[JobDetails, ...]:
        """The jobs at work, the first started first."""
        return tuple(self._jobs.values())

    def silent_s(self) -> float:
        """Look at the files; return for how many seconds nothing has changed."""
        self._read_events()
        stamps = [*map(_stamp, self._files())]
        if stamps != self._stamps:
            self._stamps, self._since = stamps, self._monotonic()
        return self._monotonic() - self._since

    def steps_s(self) -> float:
        """Return how long so many steps of its trainings at work take that only a longer silence is a stall."""
        names = {each.experiment for each in self._jobs.values()}
        found = [each.step_s for each in trainings_progress(self._run.root) if each.experiment in names]
        return STALL_STEPS * max((each for each in found if each is not None), default=0.0)

    def _files(self) -> list[Path]:
        root = self._run.root
        logs = [root / log for job in self._jobs.values() for log in job.log]
        metrics = [ProjectPaths(root, name).metrics for name in {each.experiment for each in self._jobs.values()}]
        return [self._run.events, self._run.output, *sorted({*logs, *metrics})]

    def _read_events(self) -> None:
        self._events.check()
        while lines := self._events.read_lines():
            for line in lines:
                with contextlib.suppress(RecordError):
                    event = read_event(parse_object(line))
                    if isinstance(event, JobStarted):
                        self._jobs[event.job.id] = event.job
                    elif isinstance(event, JobDone):
                        self._jobs.pop(event.id, None)
                    elif isinstance(event, JobFailed):
                        self._jobs.pop(event.job.id, None)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns
