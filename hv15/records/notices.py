"""Notices of a run: what is told of it (also the JSON that a webhook gets), and how each was delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hv15.records.fields import check_version, from_json, now
from hv15.records.json_values import JsonObject

VERSION = 1
"""The version of all records in this module; increased when the meaning of a field changes."""

NoticeEvent = Literal["end", "failure", "stall"]
"""What a config asks for."""


@dataclass(frozen=True)
class NoticeCounts:
    """The jobs of a run."""

    done: int
    total: int
    failed: int


@dataclass(frozen=True)
class NoticeTraining:
    """How far the training of a run is that took a step last."""

    step: int
    total: int
    """0 when it is not known."""
    loss: float | None


@dataclass(frozen=True)
class NoticeJob:
    """A job that has failed, or is at work in a run that does not go on."""

    rule: str
    """The kind of job: `train`, `sample_latents`."""
    kind: str | None = None
    """Of its failure: user, memory, bug, stopped, killed, unknown; null if it is not known."""
    job: str | None = None
    """With details: its name."""
    cause: str | None = None
    """With details."""
    cure: str | None = None
    """With details."""
    log: str | None = None
    """With details: its log, in the project's folder."""


@dataclass(frozen=True)
class NoticeDetails:
    """What is told only if the config asks for details."""

    host: str
    folder: str
    reason: str
    """Why the run is in its state, in words; "" when there is nothing to add."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a webhook gets. Times are in seconds since 1970."""

    version: int = VERSION
    event: NoticeEvent | Literal["test"]
    title: str
    text: str
    """The same as the fields below, for a person."""
    project: str
    """The name of the project's folder."""
    time: float = field(default_factory=now)
    run: str | None = None
    """Its id; null in a test."""
    state: str | None = None
    """running, finished, stopped, failed or died; null in a test."""
    started: float | None = None
    seconds: float | None = None
    """How long the run has taken so far."""
    jobs: NoticeCounts | None = None
    training: NoticeTraining | None = None
    """Null if the run has trained nothing."""
    saved_step: int | None = None
    """The step that a training had saved when it was stopped."""
    failed: tuple[NoticeJob, ...] = ()
    running: tuple[NoticeJob, ...] = ()
    """Of a stall: the jobs at work."""
    silent_s: float | None = None
    """Of a stall: the seconds since anything went on."""
    details: NoticeDetails | None = None


@dataclass(frozen=True, kw_only=True)
class NoticeDelivery:
    """One notice to one place: a line of a run's notices.jsonl."""

    version: int = VERSION
    time: float = field(default_factory=now)
    event: str
    to: str
    """The place, without what may be secret: ntfy (ntfy.sh), webhook (example.org), command (mail)."""
    sent: bool
    reason: str = ""
    """Why it was not sent."""

    def __str__(self) -> str:
        """One line for a person, without the event."""
        return f"{self.to}: sent" if self.sent else f"{self.to}: not sent: {self.reason}"

    @property
    def in_full(self) -> str:
        """The same with the event."""
        return f"notice of the {self.event}: {self}"


def read_delivery(content: JsonObject) -> NoticeDelivery:
    """Read a line of notices.jsonl.

    Raises:
        RecordError: it is not one, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(NoticeDelivery, content)
