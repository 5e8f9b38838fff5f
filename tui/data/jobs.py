"""The jobs of a run, from its events.jsonl: what each does, why, how long, and when all will be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from hv15.records.events import (
    ErrorSaid,
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobsPlanned,
    JobsStarted,
    JobStarted,
    RunDied,
    RunEnded,
    RunEvent,
    read_event,
)
from hv15.records.failures import Failure, FailureKind
from hv15.records.fields import NewerVersion
from hv15.records.json_values import RecordError, parse_object
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule, job_name
from hv15.runs.followed_file import FollowedLines
from tui.data.reasons import plain_reason

BENCHMARKS_READ = 50


class JobState(StrEnum):
    RUNNING = "running"
    FAILED = "failed"
    CUT = "cut short"
    """It was running when the run ended."""
    WAITING = "waiting"
    DONE = "done"


_ORDER = {state: place for place, state in enumerate(JobState)}


@dataclass(frozen=True)
class Job:
    """One job as it is now."""

    id: int
    rule: str
    wildcards: dict[str, str] = field(hash=False, default_factory=dict)
    title: str = ""
    """What it does, in the rule's words."""
    state: JobState = JobState.WAITING
    reason: str = ""
    """Why it runs, in plain words."""
    raw_reason: str = ""
    """The same in Snakemake's words."""
    log: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    """How long it had run when it was last looked at."""
    failure: Failure | None = None
    """What it recorded itself when it failed."""
    experiment: str = ""
    """The experiment that it is for; "" for the base config."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return job_name(self.rule, self.wildcards.values(), self.experiment)


@dataclass(frozen=True)
class RuleCount:
    """The jobs of one rule."""

    rule: str
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cut: int = 0
    seconds: float | None = None
    """Mean of the jobs that are done."""

    @property
    def total(self) -> int:
        return self.waiting + self.running + self.done + self.failed + self.cut


@dataclass(frozen=True)
class RunProgress:
    """How far the whole run is."""

    done: int
    total: int
    running: int
    failed: int
    eta_s: float | None
    eta_is_least: bool
    """Whether some waiting jobs have an unknown duration, so that it will take longer."""
    ended: bool
    error: str


@dataclass(frozen=True)
class _Snapshot:
    jobs: tuple[Job, ...]
    ordered: tuple[Job, ...]
    running: tuple[Job, ...]
    rules: tuple[RuleCount, ...]


class JobsReader:
    """The events of one run; `jobs` and everything else are as of the last refresh."""

    def __init__(self, events: Path, root: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._file = FollowedLines(events)
        self._root, self._clock = root, clock
        self._known: dict[str, float] = {}
        """Rule -> seconds of one of its jobs in an earlier run."""
        self._forget()

    def _forget(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._snapshot: _Snapshot | None = None
        self._done_of: dict[str, tuple[int, float]] = {}
        self._total = self._finished = 0
        self.ended, self.run_error = False, ""
        self._trouble = ""
        self.bad_lines = 0
        """How many lines are not events."""

    @property
    def error(self) -> str:
        """Why the events cannot be read; "" when all is well."""
        return self._file.error or self._trouble

    @property
    def complete(self) -> bool:
        return self._file.complete

    def refresh(self, budget_s: float = 0.25) -> bool:
        """Read what is new, for about `budget_s` seconds at most; return whether anything changed."""
        deadline = time.perf_counter() + budget_s
        changed = not self._file.check()
        if changed:
            self._file.restart()  # events are never truncated in the middle: this is another file
            self._forget()
        while lines := self._file.read_lines():
            for line in lines:
                self._take(line)
            self._snapshot = None
            changed = True
            if time.perf_counter() > deadline:
                break
        return changed

    def _take(self, line: bytes) -> None:
        if self._trouble or not line.strip():
            return
        try:
            event = read_event(parse_object(line))
        except NewerVersion as error:
            self._trouble = f"{self._file.path.name} {error}"
        except RecordError:
            self.bad_lines += 1
        else:
            if event is not None:
                self._apply(event)

    def _apply(self, event: RunEvent) -> None:
        match event:
            case JobsPlanned():
                for details in event.jobs:
                    self._jobs.setdefault(details.id, _job(details))
                self._total = max(event.total, len(self._jobs))
            case JobsStarted():
                for number in event.ids:
                    if (known := self._jobs.get(number)) and known.state is JobState.WAITING:
                        self._jobs[number] = replace(known, state=JobState.RUNNING, started=event.time)
            case JobStarted():
                self._start(_job(event.job), event.time)
            case JobDone():
                self._end(event.id, JobState.DONE, event.time)
            case JobFailed():
                self._jobs.setdefault(event.job.id, _job(event.job))
                stopped = event.failure is not None and event.failure.kind is FailureKind.STOPPED
                self._end(event.job.id, JobState.CUT if stopped else JobState.FAILED, event.time, event.failure)
            case JobsCounted():
                self._finished, self._total = event.done, event.total
            case ErrorSaid():
                self.run_error = event.text
            case RunEnded():
                self.ended = True
                self.run_error = event.error or self.run_error
                self.cut_short(event.time)
            case RunDied():
                self.cut_short(event.time)

    def _start(self, job: Job, when: float) -> None:
        """The event of a job's start may hold less than the plan did."""
        known = self._jobs.get(job.id, job)
        self._jobs[job.id] = replace(
            known,
            state=JobState.RUNNING,
            started=when,
            ended=None,
            failure=None,
            title=job.title or known.title,
            log=job.log or known.log,
            reason=job.reason or known.reason,
            raw_reason=job.raw_reason or known.raw_reason,
        )

    def _end(self, number: int, state: JobState, when: float, failure: Failure | None = None) -> None:
        known = self._jobs.get(number) or Job(number, "?")
        seconds = _between(known.started, when)
        self._jobs[number] = replace(known, state=state, ended=when, seconds=seconds, failure=failure)
        if state is JobState.DONE and (seconds := self._jobs[number].seconds) is not None:
            count, total = self._done_of.get(known.rule, (0, 0.0))
            self._done_of[known.rule] = (count + 1, total + seconds)

    def cut_short(self, when: float | None = None) -> None:
        """Count running jobs as cut short. Call it also when the run is known to be dead, which recorded no end."""
        for number, job in list(self._jobs.items()):
            if job.state is JobState.RUNNING:
                self._jobs[number] = replace(job, state=JobState.CUT, ended=when, seconds=_between(job.started, when))
                self._snapshot = None

    def count_as_cut(self, numbers: Iterable[int]) -> None:
        """Count failed jobs as cut short: a job that a requested stop ended has not failed, whatever Snakemake says."""
        for number in numbers:
            self._jobs[number] = replace(self._jobs[number], state=JobState.CUT)
            self._snapshot = None

    # -- showing ----------------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in the order of the plan."""
        now = self._clock()
        view = self._view()
        return tuple(self._timed(job, now) for job in view.jobs) if view.running else view.jobs

    def job(self, number: int) -> Job | None:
        found = self._jobs.get(number)
        return self._timed(found, self._clock()) if found else None

    def _timed(self, job: Job, now: float) -> Job:
        return replace(job, seconds=_between(job.started, now)) if job.state is JobState.RUNNING else job

    def ordered(self) -> tuple[Job, ...]:
        """Running ones first, then failed, waiting, and done ones last (the latest first)."""
        view, now = self._view(), self._clock()
        return (*(self._timed(job, now) for job in view.running), *view.ordered[len(view.running) :])

    def by_rule(self) -> tuple[RuleCount, ...]:
        """The jobs of each rule, in the order of the plan."""
        return self._view().rules

    def _view(self) -> _Snapshot:
        """The views of the jobs, made once for each change."""
        if self._snapshot is None:
            jobs = tuple(self._jobs.values())
            ordered = sorted(
                jobs, key=lambda job: (_ORDER[job.state], -(job.ended or 0.0) * (job.state is JobState.DONE))
            )
            running = tuple(job for job in jobs if job.state is JobState.RUNNING)
            self._snapshot = _Snapshot(jobs, tuple(ordered), running, self._counted())
        return self._snapshot

    def _counted(self) -> tuple[RuleCount, ...]:
        counts: dict[str, dict[str, int]] = {}
        for job in self._jobs.values():
            of_rule = counts.setdefault(job.rule, {})
            name = "cut" if job.state is JobState.CUT else job.state.value
            of_rule[name] = of_rule.get(name, 0) + 1
        return tuple(RuleCount(rule, **each, seconds=self._mean(rule)) for rule, each in counts.items())

    def _mean(self, rule: str) -> float | None:
        count, total = self._done_of.get(rule, (0, 0.0))
        return total / count if count else None

    def progress(self, training_eta_s: float | None = None) -> RunProgress:
        """Return how far the run is, and when it will be done if jobs take as long as others of their rule did.

        Args:
            training_eta_s: the training's own estimate of the time that it has left.
        """
        counts = self.by_rule()
        now = self._clock()
        running = [self._timed(job, now) for job in self._view().running]
        rest, unknown = 0.0, False
        for job in running:
            if job.rule == Rule.TRAIN and training_eta_s is not None:
                rest += training_eta_s
            elif (usual := self._usual(job.rule)) is not None:
                rest += max(0.0, usual - (job.seconds or 0.0))
            else:
                unknown = True
        for each in counts:
            usual = self._usual(each.rule)
            rest += each.waiting * (usual or 0.0)
            unknown = unknown or bool(each.waiting and usual is None)
        done = max(self._finished, sum(each.done for each in counts))
        total = max(self._total, len(self._jobs))
        over = self.ended or (total > 0 and done >= total)
        return RunProgress(
            done=done,
            total=total,
            running=len(running),
            failed=sum(each.failed for each in counts),
            # Less than a second, with the rest unknown, is not worth showing.
            eta_s=None if over or not total or (unknown and rest < 1) else rest / max(1, len(running)),
            eta_is_least=unknown,
            ended=self.ended,
            error=self.run_error,
        )

    def _usual(self, rule: str) -> float | None:
        """How long a job of the rule takes: in this run, else in an earlier one by Snakemake's benchmark files."""
        mean = self._mean(rule)
        if mean is None and self._root is not None:
            if rule not in self._known:
                self._known[rule] = _benchmark(self._root, rule)
            mean = self._known[rule]
        return mean if mean is not None and mean >= 0 else None


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.id,
        rule=details.rule,
        wildcards=details.wildcards,
        title=details.message,
        reason=plain_reason(details.reason),
        raw_reason=details.reason,
        log=details.log,
        output=details.output,
        experiment=details.experiment,
    )


def _between(start: float | None, end: float | None) -> float | None:
    """Seconds between two times; a clock that was set back gives 0."""
    return None if start is None or end is None else max(0.0, end - start)


def _benchmark(root: Path, rule: str) -> float:
    """Seconds in the newest benchmark file of a rule; -1 if there is none."""
    found: list[tuple[float, float]] = []
    folder = ProjectPaths(root).benchmarks
    try:
        files = [path for name in (rule, f"{rule}.*") for path in folder.glob(ProjectPaths().benchmark(name).name)]
        for path in files[:BENCHMARKS_READ]:
            head, line = path.read_text(errors="replace").splitlines()[:2]
            found.append(
                (path.stat().st_mtime, float(dict(zip(head.split("\t"), line.split("\t"), strict=False))["s"]))
            )
    except (OSError, ValueError, KeyError):
        pass
    return max(found)[1] if found else -1.0
