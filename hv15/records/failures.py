"""The record of a job's failure, which the job itself writes beside its log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hv15.records.fields import check_version, from_json, now
from hv15.records.json_values import JsonObject

VERSION = 1
"""Increased when the meaning of a field changes."""


class FailureKind(StrEnum):
    """The kinds of failures, by who can fix them."""

    USER = "user"
    """The user can fix it by changing what the cause names."""
    MEMORY = "memory"
    """The user can fix it with settings that need less memory."""
    BUG = "bug"
    """The authors of hv15 have to fix it."""
    STOPPED = "stopped"
    """The job was asked to stop, so there is nothing to fix."""
    KILLED = "killed"
    """The job was killed and recorded no cause."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Failure:
    """Why a job failed, and what to do."""

    cause: str
    cure: str
    kind: FailureKind
    place: str = ""
    """The first place to look at: a setting (`config.yaml:24:17 train.learning_rate`), a file, or for a bug the line of
    hv15's code in which it appeared (`loop.py:12`)."""
    saved_step: int | None = None
    """The number of saved steps, if a training was stopped."""

    def __str__(self) -> str:
        """The cause and its place, which most causes already name."""
        return self.cause if self.place in self.cause else f"{self.cause} ({self.place})"


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """The file beside the log of a job that failed."""

    version: int = VERSION
    rule: str
    """The rule of the job."""
    command: tuple[str, ...]
    """The job's command."""
    failure: Failure
    time: float = field(default_factory=now)


def read_failure(content: JsonObject) -> FailureRecord:
    """Read the content of the file beside a log.

    Raises:
        RecordError: it is not a record of a failure, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(FailureRecord, content)


def saved_step(failures: Iterable[Failure | None]) -> int | None:
    """Return the step that a stopped training has saved; None if no training was stopped during its steps."""
    return max((each.saved_step for each in failures if each and each.saved_step is not None), default=None)
