"""A run of one `hv15` command instead of the workflow: `python -m hv15.runs.single TITLE COMMAND ARGUMENT...`

It records the events that Snakemake would (`hv15.runs.events`), with the command as its only job, so that it is
watched, stopped and explained like any run. `hv15.runs.control.start_command` starts it in the project's folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from hv15.environment import FAILURE_VARIABLE, RULE_VARIABLE, RUN_VARIABLE
from hv15.records.events import (
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobsPlanned,
    JobStarted,
    RecordingStarted,
    RunEnded,
    RunEvent,
)
from hv15.records.paths import ProjectPaths
from hv15.runs.failures import failure_beside
from hv15.runs.record import RunFolder, append_event

ONLY = 1
"""The number of the job."""


class SingleRun:
    """The run of a command. Whatever goes wrong with the recording, the command continues."""

    def __init__(self, run: RunFolder, title: str, words: Sequence[str]) -> None:
        log = str(run.output.relative_to(run.root))
        self._run, self._words = run, words
        self._job = JobDetails(id=ONLY, rule=words[0], wildcards={"title": title}, message=title, log=(log,))
        self._process: subprocess.Popen[bytes] | None = None
        self._signal = ""

    def run(self) -> int:
        """Run the command to its end and return its exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        self._write(RecordingStarted())
        self._write(JobsPlanned(jobs=(self._job,), total=1))
        failure = ProjectPaths().failure(self._run.output)
        environment = {**os.environ, FAILURE_VARIABLE: str(failure), RULE_VARIABLE: self._job.rule}
        if not (self._signal or self._run.stop.exists()):
            self._write(JobStarted(job=self._job))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hv15.cli", *self._words], stdin=subprocess.DEVNULL, env=environment
            )
            if self._process.wait() == 0:
                self._write(JobDone(id=ONLY))
                self._write(JobsCounted(done=1, total=1))
                self._write(RunEnded(done=1, total=1))
                return 0
            self._write(JobFailed(job=self._job, failure=failure_beside(self._run.output)))
        failed = (ONLY,) if self._process is not None else ()
        self._write(RunEnded(done=0, total=1, failed=failed, signal=self._signal))
        return self._process.returncode if self._process is not None else 1

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Note the first request. SIGINT comes to the command as well, since it is sent to the whole group."""
        self._signal = self._signal or signal.Signals(number).name
        if number != signal.SIGINT and self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def _write(self, event: RunEvent) -> None:
        with contextlib.suppress(OSError):  # a full disk: the command matters more
            append_event(self._run.events, event)


if __name__ == "__main__":
    heading, *command = sys.argv[1:]
    sys.exit(SingleRun(RunFolder(Path.cwd(), os.environ[RUN_VARIABLE]), heading, command).run())
