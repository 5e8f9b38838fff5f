"""What a person sees of a failure: its cause and cure, and the end of the log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hv15.records.failures import Failure, FailureKind
from hv15.runs.failures import RESTART, failure_beside
from hv15.runs.foreign_messages import failure_in_log, failure_of_run
from hv15.runs.state import RunState, RunStatus
from tui.data.jobs import Job, JobState
from tui.data.log_file import tail

LINES_SHOWN = 20
"""Lines of a log on a card."""
LINES_SEARCHED = 400
"""Lines at the end of a log in which a cause is looked for."""


@dataclass(frozen=True)
class FailureCard:
    """A failed job, or a failed run."""

    title: str
    failure: Failure
    log: Path | None
    tail: tuple[str, ...]
    """The last lines of the log."""
    job: Job | None


def failure_cards(root: Path, jobs: Iterable[Job], status: RunStatus | None) -> tuple[FailureCard, ...]:
    """Return a card for each failed job, or else one for a failed run.

    A job that was cut short by a requested stop has not failed.
    """
    stopped = status is not None and status.state in (RunState.STOPPED, RunState.STOPPING)
    cards = []
    for job in jobs:
        if job.state is JobState.FAILED or (job.state is JobState.CUT and not stopped):
            card = _job_card(root, job)
            if not (stopped and card.failure.kind in (FailureKind.STOPPED, FailureKind.UNKNOWN)):
                cards.append(card)
    if not cards and status is not None and status.state in (RunState.FAILED, RunState.DIED):
        lines = _without_blank_end(tail(status.run.output, LINES_SEARCHED))
        if status.state is RunState.DIED:
            failure = Failure(status.reason, "start again: what is finished is kept", FailureKind.KILLED)
        else:
            failure = status.failure or failure_of_run(lines, status.reason)
        cards.append(FailureCard(f"run {status.run.id}", failure, status.run.output, tuple(lines[-LINES_SHOWN:]), None))
    return tuple(cards)


def _job_card(root: Path, job: Job) -> FailureCard:
    log = next((root / name for name in job.log if (root / name).exists()), None)
    lines = _without_blank_end(tail(log, LINES_SEARCHED)) if log else []
    failure = job.failure
    if failure is None and log is not None and job.state is JobState.CUT:
        failure = failure_beside(log)  # the run died before it could record it
    if failure is None:
        failure = failure_in_log(lines)
        if job.state is JobState.CUT and failure.kind in (FailureKind.UNKNOWN, FailureKind.BUG):
            failure = Failure("it was cut short when the run ended", RESTART, FailureKind.KILLED)
    return FailureCard(job.name, failure, log, tuple(lines[-LINES_SHOWN:]), job)


def _without_blank_end(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines
