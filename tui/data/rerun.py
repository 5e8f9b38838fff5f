"""What would run again after an edit, and why: Snakemake's own plan, made in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hv15.environment import EVENTS_VARIABLE
from hv15.errors import UserError
from hv15.runs import control
from hv15.runs.foreign_messages import facts
from tui.data.jobs import Job, JobsReader
from tui.data.reasons import plain_reason
from tui.data.trial import Completed, Trial

__all__ = ["DryRun", "PlannedJob", "Rerun", "plain_reason"]


@dataclass(frozen=True)
class PlannedJob:
    """A job that would run."""

    id: int
    rule: str
    title: str
    reason: str
    """In plain words."""
    raw_reason: str
    output: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    wildcards: dict[str, str] = field(hash=False, default_factory=dict)


@dataclass(frozen=True)
class Rerun:
    """The plan."""

    jobs: tuple[PlannedJob, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    """(rule, number of its jobs), the most first."""
    error: str = ""
    """Why there is no plan."""
    seconds: float = 0.0
    cancelled: bool = False

    @property
    def summary(self) -> str:
        """In one line."""
        if self.cancelled:
            return "not looked at any more"
        if self.error:
            return self.error.splitlines()[0]
        if not self.jobs:
            return "nothing would run: everything is up to date"
        rules = ", ".join(f"{rule} {count}" if count > 1 else rule for rule, count in self.counts)
        return f"{len(self.jobs)} job{'s' * (len(self.jobs) > 1)}: {rules}"


class DryRun:
    """One plan, for the config as it is on disk or for a text that is not saved yet."""

    def __init__(self, config: Path, text: str | None = None, targets: Sequence[str] = ()) -> None:
        self._trial = Trial(config, text)
        self._targets = list(targets) or [control.TARGET]

    def run(self) -> Rerun:
        """Ask Snakemake. Takes seconds: for a thread of its own."""
        begun = time.monotonic()
        try:
            jobs, error, cancelled = self._ask()
        except UserError as refused:
            jobs, error, cancelled = (), str(refused), False
        counts = Counter(job.rule for job in jobs)
        return Rerun(jobs, tuple(counts.most_common()), error, time.monotonic() - begun, cancelled)

    def cancel(self) -> None:
        self._trial.cancel()

    def _ask(self) -> tuple[tuple[PlannedJob, ...], str, bool]:
        root = self._trial.config.parent
        home = control.snakefile(root).parent
        with self._trial.file() as config, tempfile.TemporaryDirectory(prefix="hv15-") as folder:
            events = Path(folder) / "events.jsonl"
            words = control.command(config, "--dry-run", "--nocolor", *self._targets)
            done = self._trial.run(
                words, folder=home, environment=control.environment(**{EVENTS_VARIABLE: str(events)})
            )
            if done.cancelled:
                return (), "", True
            reader = JobsReader(events)
            while reader.refresh():
                pass
        if done.code:
            return (), self._trial.named(_first_words(reader, done), config), False
        return tuple(_planned(job) for job in reader.jobs), "", False


def _planned(job: Job) -> PlannedJob:
    return PlannedJob(
        job.id, job.rule, job.title or job.rule, job.reason, job.raw_reason, job.output, job.log, job.wildcards
    )


def _first_words(reader: JobsReader, done: Completed) -> str:
    """What went wrong, without Snakemake's own heading."""
    if reader.refusal is not None:
        return f"{reader.refusal.cause}\nhint: {reader.refusal.cure}"
    return "\n".join(facts(reader.run_error or done.errors)[:12]) or f"snakemake ended with code {done.code}"
