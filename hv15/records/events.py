"""What is told of a run of the workflow: who runs (run.json), and what happens to its jobs (events.jsonl).

events.jsonl has one JSON object a line, by `event`, written from inside Snakemake (`hv15.runs.events`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hv15.records.failures import Failure
from hv15.records.fields import check_version, from_json, now, to_json
from hv15.records.json_values import JsonObject
from hv15.records.rules import job_name

VERSION = 1
"""Of all in this module; raised when a field or an event gets another meaning."""


# -- run.json -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRecord:
    """Enough to find the processes of a run, or to see that they are elsewhere."""

    id: str
    pid: int
    create_time: float
    """When the process was made, as psutil says (seconds since 1970): another process may get the same pid later."""
    boot_time: float
    """When the machine was started (seconds since 1970)."""
    host: str
    command: tuple[str, ...]
    started: float
    """Seconds since 1970."""
    targets: tuple[str, ...] = ()
    leads_group: bool = False
    """Whether the process group is the run's own, so that a signal to the group reaches nobody else."""
    version: int = VERSION


# -- events.jsonl ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """One line."""

    event: ClassVar[str]
    time: float = field(default_factory=now)
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class JobDetails:
    """What a person may want to know of a job."""

    id: int
    rule: str
    wildcards: dict[str, str] = field(default_factory=dict, hash=False)
    reason: str = ""
    """Why it runs, as Snakemake says it."""
    message: str = ""
    """What it does, in the rule's words."""
    log: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    """Paths from the project folder; of logs too."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return job_name(self.rule, self.wildcards.values())


@dataclass(frozen=True, kw_only=True)
class RecordingStarted(RunEvent):
    """The first line."""

    event = "begin"
    version: int = VERSION


@dataclass(frozen=True, kw_only=True)
class JobsPlanned(RunEvent):
    """All that will run is known."""

    event = "plan"
    jobs: tuple[JobDetails, ...]
    """Each behind what it waits for; none from a Snakemake whose plan cannot be read."""
    total: int


@dataclass(frozen=True, kw_only=True)
class JobsStarted(RunEvent):
    """Jobs were handed to an executor; those of a group start together."""

    event = "start"
    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class JobStarted(RunEvent):
    """One job starts."""

    event = "job"
    job: JobDetails


@dataclass(frozen=True, kw_only=True)
class JobDone(RunEvent):
    """One job has finished."""

    event = "done"
    id: int


@dataclass(frozen=True, kw_only=True)
class JobFailed(RunEvent):
    """One job has failed, or was stopped."""

    event = "failed"
    job: JobDetails
    failure: Failure | None = None
    """What the job itself said; None if it could not. So the history stays true when the job is tried again."""


@dataclass(frozen=True, kw_only=True)
class JobsCounted(RunEvent):
    """How many jobs are done."""

    event = "progress"
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class ErrorSaid(RunEvent):
    """Snakemake printed an error."""

    event = "error"
    text: str


@dataclass(frozen=True, kw_only=True)
class RunEnded(RunEvent):
    """The last line of a run that was not killed."""

    event = "end"
    done: int
    total: int
    failed: tuple[int, ...] = ()
    error: str = ""
    """What Snakemake said last."""
    failure: Failure | None = None
    """Why the workflow could not be planned, if hv15 said so."""
    signal: str = ""
    """The signal that asked it to stop, such as SIGINT; "" if none did."""


@dataclass(frozen=True, kw_only=True)
class RunDied(RunEvent):
    """A run was found dead, without an end. Written once by whoever found it, so that later looks tell the same."""

    event = "died"
    reason: str


EVENTS: dict[str, type[RunEvent]] = {
    each.event: each
    for each in (
        RecordingStarted,
        JobsPlanned,
        JobsStarted,
        JobStarted,
        JobDone,
        JobFailed,
        JobsCounted,
        ErrorSaid,
        RunEnded,
        RunDied,
    )
}


def event_line(event: RunEvent) -> JsonObject:
    """Return an event as the JSON object of its line."""
    return {"event": event.event, **to_json(event)}


def read_event(content: JsonObject) -> RunEvent | None:
    """Return the event of a line; None if it is of a kind that this version does not know.

    Raises:
        RecordError: it is not what an event looks like, or of a version that is not understood.
    """
    kind = EVENTS.get(str(content.get("event")))
    if kind is None:
        return None
    event = from_json(kind, content)
    if isinstance(event, RecordingStarted):
        check_version(event.version, VERSION)
    return event


def read_run(content: JsonObject) -> RunRecord:
    """Return what run.json says.

    Raises:
        RecordError: it is not what a run looks like, or of a version that is not understood.
    """
    check_version(content.get("version"), VERSION)
    return from_json(RunRecord, content)
