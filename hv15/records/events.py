"""Records of a run of the workflow: its processes (run.json), and the events of its jobs (events.jsonl).

events.jsonl has one JSON object per line, whose `event` says its kind, written from inside Snakemake
(`hv15.runs.events`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hv15.records.failures import Failure
from hv15.records.fields import check_version, from_json, now, to_json
from hv15.records.json_values import JsonObject
from hv15.records.rules import job_name

VERSION = 1
"""The version of all records in this module; increased when the meaning of a field or an event changes."""


# -- run.json -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRecord:
    """Identifies the processes of a run, or the machine on which they are."""

    id: str
    pid: int
    create_time: float
    """When psutil says that the process was created, in seconds since 1970: another one may get the same pid later."""
    boot_time: float
    """When the machine was booted, in seconds since 1970."""
    host: str
    command: tuple[str, ...]
    started: float
    """Seconds since 1970."""
    targets: tuple[str, ...] = ()
    leads_group: bool = False
    """Whether the run has its own process group, so that a signal to the group reaches no other process."""
    version: int = VERSION


# -- events.jsonl ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """The event of one line."""

    event: ClassVar[str]
    time: float = field(default_factory=now)
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class JobDetails:
    """The properties of a job that are shown to the user."""

    id: int
    rule: str
    wildcards: dict[str, str] = field(default_factory=dict, hash=False)
    experiment: str = ""
    """The experiment that it is for; "" for the base config."""
    reason: str = ""
    """Why it runs, in Snakemake's words."""
    message: str = ""
    """The rule's message, which says what it does."""
    log: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    """Paths of the outputs, and of the logs, are relative to the project folder."""

    @property
    def name(self) -> str:
        """The job's name for a person."""
        return job_name(self.rule, self.wildcards.values(), self.experiment)


@dataclass(frozen=True, kw_only=True)
class RecordingStarted(RunEvent):
    """The first event."""

    event = "begin"
    version: int = VERSION


@dataclass(frozen=True, kw_only=True)
class JobsPlanned(RunEvent):
    """All jobs that will run are known."""

    event = "plan"
    jobs: tuple[JobDetails, ...]
    """Each after the jobs on which it depends; none if this version of Snakemake's plan cannot be read."""
    total: int


@dataclass(frozen=True, kw_only=True)
class JobsStarted(RunEvent):
    """Jobs were passed to an executor; those of a group start together."""

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
    """The failure that the job itself recorded, if any; kept here because a retry overwrites that record."""


@dataclass(frozen=True, kw_only=True)
class JobsCounted(RunEvent):
    """The number of finished jobs has changed."""

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
    """The last event of a run that was not killed."""

    event = "end"
    done: int
    total: int
    failed: tuple[int, ...] = ()
    error: str = ""
    """Snakemake's last error message."""
    failure: Failure | None = None
    """Why the workflow could not be planned, if hv15 recorded a reason."""
    signal: str = ""
    """The signal that asked it to stop, such as SIGINT; "" if none did."""


@dataclass(frozen=True, kw_only=True)
class RunDied(RunEvent):
    """A run was found dead without its last event. The process that finds it writes this once, for later readers."""

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
    """Return the event of a line; None if this version does not know its kind.

    Raises:
        RecordError: it is not an event, or is of a newer version.
    """
    kind = EVENTS.get(str(content.get("event")))
    if kind is None:
        return None
    event = from_json(kind, content)
    if isinstance(event, RecordingStarted):
        check_version(event.version, VERSION)
    return event


def read_run(content: JsonObject) -> RunRecord:
    """Read the content of run.json.

    Raises:
        RecordError: it is not a record of a run, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(RunRecord, content)
