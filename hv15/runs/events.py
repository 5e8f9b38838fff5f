"""Records a run from inside Snakemake, from what it logs: what happens to its jobs, why one failed, what made it stop.

Snakemake's log records say in fields what they are about (`record.event`), so nothing is parsed from text.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hv15.environment import EVENTS_VARIABLE, RUN_VARIABLE
from hv15.errors import UserError
from hv15.notices.mentioned import are_mentioned
from hv15.records.events import (
    ErrorSaid,
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobsPlanned,
    JobsStarted,
    JobStarted,
    RecordingStarted,
    RunEnded,
    RunEvent,
)
from hv15.records.failures import Failure
from hv15.records.json_values import Json
from hv15.records.paths import CONFIG
from hv15.records.stage_names import plain_rule, run_of_wildcards, stage_of_run, without_run
from hv15.runs import lock
from hv15.runs.failures import failure_beside, failure_of
from hv15.runs.foreign_messages import concerns_people, failure_by_exit, unknown_target
from hv15.runs.metrics import keep_metrics
from hv15.runs.output import OutputCopy
from hv15.runs.record import RunFolder, append_event, new_run
from hv15.runs.snakemake_types import SnakemakeJob, SnakemakeWorkflow
from hv15.runs.state import close_last_run
from hv15.runs.stop_signals import StopSignals

if TYPE_CHECKING:
    from hv15.notices.follower import RunFollower


def record_events(workflow: SnakemakeWorkflow, overrides: Mapping[str, Json] | None = None) -> EventRecorder | None:
    """Record a run: the one that `hv15 run` has started, or one that was started by hand, which then gets a folder.

    Called when the Snakefile is read. Neither jobs that read it again nor dry runs that nobody watches are recorded.

    Args:
        workflow: Snakemake's workflow object.
        overrides: settings that override those of the config file, for the notices of the run.
    """
    if not workflow.is_main_process:
        return None
    from snakemake.logging import logger

    recorder = EventRecorder(workflow, Path.cwd(), overrides or {})
    logger.addFilter(concerns_people)
    logger.addHandler(recorder)
    recorder.listen()
    return recorder


Why = Callable[[str], str]


class EventRecorder(logging.Handler):
    """Writes events. Whatever goes wrong with it, the run continues."""

    def __init__(self, workflow: SnakemakeWorkflow, root: Path, overrides: Mapping[str, Json]) -> None:
        super().__init__()
        self._workflow, self._root, self._overrides = workflow, root, overrides
        self.why: Why = lambda stage: ""
        """Returns why a job runs, in words, by its stage; "" keeps Snakemake's own reason."""
        self._lock_descriptor: int | None = None
        self._planned = False
        self._done = self._total = 0
        self._started: dict[int, JobDetails] = {}
        self._failed: list[int] = []
        self._errors: list[str] = []
        self._refusal: Failure | None = None
        self._signals = StopSignals()
        self._output: OutputCopy | None = OutputCopy()
        watched, run = os.environ.get(EVENTS_VARIABLE), os.environ.get(RUN_VARIABLE)
        self._path: Path | None = None
        if watched or run:
            self._output = None  # the starter keeps the output
            self._record_to(Path(watched) if watched else RunFolder(root, run or "").events)
        self._follower: RunFollower | None = None
        if run and not watched:
            self._notify(RunFolder(root, run))

    def listen(self) -> None:
        """Let requests to stop reach this process, and raise a KeyboardInterrupt for one that came before."""
        run = os.environ.get(RUN_VARIABLE)
        self._signals.listen(even_if_ignored=bool(run))
        if run and RunFolder(self._root, run).stop.exists():
            raise KeyboardInterrupt

    def refused(self, error: UserError) -> None:
        """Note why nothing could be planned."""
        self._refusal = failure_of(error)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._signals.notice_snakemakes_own()
            event = str(getattr(record, "event", "") or "")
            if event == "run_info" and not self._path:
                self._begin()
            if self._output:
                self._output.handle(record)
            if self._path and (found := self._event(event, record)):
                self._write(found)
        except Exception:  # a full disk, a Snakemake that names things otherwise: the run matters more
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Stay silent: otherwise there would be one message for each job."""

    def close(self) -> None:
        if self._path:
            raised = sys.exc_info()[1]
            error = self._errors[-1] if self._errors else (f"{type(raised).__name__}: {raised}" if raised else "")
            end = RunEnded(
                done=self._done,
                total=self._total,
                failed=tuple(self._failed),
                error=error,
                failure=self._refusal or unknown_target(error),
                signal=self._signals.received,
            )
            with contextlib.suppress(OSError):
                self._write(end)
            self._path = None
            if run := os.environ.get(RUN_VARIABLE):
                keep_metrics(RunFolder(self._root, run))
            if self._follower:
                self._follower.end()
        super().close()

    def _record_to(self, path: Path) -> None:
        self._path = path
        with contextlib.suppress(OSError):
            self._write(RecordingStarted())

    def _notify(self, run: RunFolder) -> None:
        """Have the run followed, if its config or the user wants notices."""
        if not are_mentioned(run.config, self._overrides):
            return
        try:
            from hv15.notices.follower import RunFollower

            self._follower = RunFollower.of(run, self._overrides)
        except Exception:  # whatever it is, the run matters more
            self.handleError(logging.makeLogRecord({}))

    def _write(self, event: RunEvent) -> None:
        if self._path:
            append_event(self._path, event)

    def _begin(self) -> None:
        """Give a run that was started by hand its folder, unless it is a dry run or another run is alive."""
        output, self._output = self._output, None
        if self._workflow.dryrun:
            return
        run = new_run(self._root)
        try:
            self._lock_descriptor = lock.take(self._root, run.id, attempts=5)
            if self._lock_descriptor is None:
                return
            close_last_run(self._root)
            files = [Path(file) for file in self._workflow.overwrite_configfiles] or [self._root / CONFIG]
            run.create(files[0])
            run.write_record(os.getpid(), sys.argv, [])
        except UserError:
            return
        os.environ[RUN_VARIABLE] = run.id
        self._record_to(run.events)
        self._notify(run)
        if output:
            output.begin(run.output)
            self._output = output

    def _event(self, event: str, record: logging.LogRecord) -> RunEvent | None:
        """Return the event of one log record, or None."""
        fields, time = vars(record), round(record.created, 3)
        if event == "run_info":
            if self._planned:  # a dry run logs it a second time at its end
                return None
            self._planned, jobs = True, tuple(map(self._explained, planned_jobs(self._workflow)))
            self._total = len(jobs) or int((fields.get("stats") or {}).get("total", 0))
            return JobsPlanned(time=time, jobs=jobs, total=self._total)
        if event == "job_started":
            return JobsStarted(time=time, ids=tuple(fields["jobs"]))
        if event == "job_info":
            job = self._explained(_details(fields))
            self._started[job.id] = job
            return JobStarted(time=time, job=job)
        if event == "job_finished":
            self._forgive(fields["job_id"])
            return JobDone(time=time, id=fields["job_id"])
        if event == "job_error":
            failed = _details(fields)  # without wildcards, so without its experiment: Snakemake does not tell them here
            started = self._started.get(failed.id)
            return self._job_failed(time, failed if started is None else replace(started, log=failed.log))
        if event == "progress":
            self._done, self._total = fields["done"], fields["total"]
            return JobsCounted(time=time, done=self._done, total=self._total)
        if event == "error":
            self._errors.append(record.getMessage())
            return ErrorSaid(time=time, text=self._errors[-1])
        return None

    def _forgive(self, job_id: int) -> None:
        """Forget the failures of a job that was tried again and is done now."""
        if job_id in self._failed:
            self._failed.remove(job_id)
            if not self._failed:
                self._errors.clear()

    def _explained(self, job: JobDetails) -> JobDetails:
        """The job with its reason in our own words, which its message ends with."""
        words = self.why(stage_of_run(job.experiment, ".".join([job.rule, *job.wildcards.values()])))
        return replace(job, reason=words, message=job.message.removesuffix(f": {words}")) if words else job

    def _job_failed(self, time: float, job: JobDetails) -> JobFailed:
        """Return the failure. The job has ended, so its own record of it lies beside its log."""
        if job.id not in self._failed:
            self._failed.append(job.id)
        said = [failure for log in job.log if (failure := failure_beside(self._root / log))]
        # Snakemake's message about the exit holds the job's command, with its log.
        exits = [error for error in self._errors if any(log in error for log in job.log)]
        ended = failure_by_exit(exits[-1]) if exits and not said else None
        return JobFailed(time=time, job=job, failure=said[0] if said else ended)


def _details(fields: Mapping[str, Any]) -> JobDetails:  # type: ignore[explicit-any]  # Snakemake gives them no types
    """What a person may want to know about a job, from the fields of a log record."""
    wildcards = {name: str(value) for name, value in (fields.get("wildcards") or {}).items()}
    return JobDetails(
        id=fields["jobid"],
        rule=plain_rule(fields["rule_name"]),
        wildcards=without_run(wildcards),
        experiment=run_of_wildcards(wildcards),
        reason=fields.get("reason") or "",
        message=fields.get("rule_msg") or "",
        log=tuple(map(str, fields.get("log") or ())),
        output=tuple(str(file).removesuffix(" (update)") for file in fields.get("output") or ()),
    )


def planned_jobs(workflow: SnakemakeWorkflow) -> tuple[JobDetails, ...]:
    """Return all jobs that will run, each after those that it waits for.

    Returns none if this Snakemake keeps its plan in another form: then jobs appear as they start.
    """
    try:
        dag = workflow.dag
        needed = set(dag.needrun_jobs())
        levels = [sorted(needed.intersection(level), key=_place) for level in dag.toposorted()]
        return tuple(
            JobDetails(
                id=job.jobid,
                rule=plain_rule(job.rule.name),
                wildcards=without_run(_texts(job)),
                experiment=run_of_wildcards(_texts(job)),
                reason=str(dag.reason(job)),
                message=str(job.message or ""),
                log=tuple(map(str, job.log)),
                output=tuple(map(str, job.output)),
            )
            for level in levels
            for job in level
        )
    except (AttributeError, TypeError):
        return ()


def _texts(job: SnakemakeJob) -> dict[str, str]:
    return {name: str(value) for name, value in job.wildcards_dict.items()}


def _place(job: SnakemakeJob) -> tuple[str, str]:
    return job.rule.name, str(sorted(job.wildcards_dict.items()))
