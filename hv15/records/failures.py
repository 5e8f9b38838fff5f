"""Why a job failed, written by the job itself beside its log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hv15.records.fields import check_version, from_json, now
from hv15.records.json_values import JsonObject

VERSION = 1
"""Raised when a field gets another meaning."""


class FailureKind(StrEnum):
    """Who can do something about a failure."""

    USER = "user"
    """A person, by changing what the cause names."""
    MEMORY = "memory"
    """A person, by settings that need less memory."""
    BUG = "bug"
    """The authors of hv15."""
    STOPPED = "stopped"
    """Nobody has to: it was asked to stop."""
    KILLED = "killed"
    """It was ended from outside, and said nothing."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Failure:
    """Why something failed, and what helps."""

    cause: str
    cure: str
    kind: FailureKind
    place: str = ""
    """The line of our code in which a bug showed, such as `loop.py:12`."""
    saved_step: int | None = None
    """Steps of a training that are saved, if it was stopped."""


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """The file beside the log of a job that failed."""

    version: int = VERSION
    command: tuple[str, ...]
    """What the job ran."""
    failure: Failure
    time: float = field(default_factory=now)


def read_failure(content: JsonObject) -> FailureRecord:
    """Return what the file beside a log says.

    Raises:
        RecordError: it is not what a failure looks like, or of a version that is not understood.
    """
    check_version(content.get("version"), VERSION)
    return from_json(FailureRecord, content)


def saved_step(failures: Iterable[Failure | None]) -> int | None:
    """Return the step that a stopped training has saved; None if none was stopped in its steps."""
    return max((each.saved_step for each in failures if each and each.saved_step is not None), default=None)
