"""The queue of a machine: projects that are run one after the other, or several at once, as its file keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hv15.records.fields import check_version, from_json, to_json
from hv15.records.json_values import JsonObject

VERSION = 1
"""Increased when the meaning of a field changes."""


class QueuedState(StrEnum):
    """What becomes of a project in the queue."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def has_ended(self) -> bool:
        return self not in (QueuedState.WAITING, QueuedState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class QueuedProject:
    """A project in the queue, with what is asked of it."""

    number: int
    """Its name in the queue, which no other ever gets."""
    config: Path
    """Its config file, absolute."""
    targets: tuple[str, ...] = ()
    """What to make; without any, what a run makes."""
    snakemake: tuple[str, ...] = ()
    """Further words for Snakemake."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES when it was added: the only GPUs that it may use. None: all."""
    gpus: int = 1
    """How many GPUs it needs for itself, if it does not get all."""
    state: QueuedState = QueuedState.WAITING
    reason: str = ""
    """Why it waits again, or how it ended."""
    cure: str = ""
    """What to do about it."""
    added: float = 0.0
    """Seconds since 1970, as the following."""
    started: float | None = None
    ended: float | None = None
    run: str = ""
    """The id of its run, known before that is started."""
    devices: tuple[str, ...] = ()
    """The GPUs that it runs on, if it did not get all."""
    again: bool = False
    """Whether it waits again once its run has stopped."""

    @property
    def root(self) -> Path:
        """The project folder."""
        return self.config.parent

    @property
    def has_ended(self) -> bool:
        return self.state.has_ended


@dataclass(frozen=True, kw_only=True)
class Queue:
    """All projects, those that wait in their order, and how they are run."""

    version: int = VERSION
    projects: tuple[QueuedProject, ...] = ()
    next_number: int = 1
    at_once: int = 1
    """How many run at the same time, each with all GPUs."""
    per_device: bool = False
    """Whether as many run as there are GPUs instead, each with GPUs of its own."""
    paused: bool = False
    """Whether no further one is started."""

    def of(self, *states: QueuedState) -> tuple[QueuedProject, ...]:
        """Return the projects in any of these states, in their order."""
        return tuple(each for each in self.projects if each.state in states)

    @property
    def running(self) -> tuple[QueuedProject, ...]:
        return self.of(QueuedState.RUNNING)

    @property
    def waiting(self) -> tuple[QueuedProject, ...]:
        return self.of(QueuedState.WAITING)

    @property
    def has_work(self) -> bool:
        """Whether something runs that has to be watched, or waits to be started."""
        return bool(self.running) or bool(self.waiting and not self.paused)

    def in_order(self) -> tuple[QueuedProject, ...]:
        """Return what runs, what waits, and what has ended, the last one first."""
        ended = sorted((each for each in self.projects if each.has_ended), key=lambda each: -(each.ended or 0.0))
        return (*self.running, *self.waiting, *ended)

    def place(self, project: QueuedProject) -> int:
        """Return how many projects are before one that waits, and itself: 1 is the next."""
        return 1 + [each.number for each in self.waiting].index(project.number)

    def as_json(self) -> JsonObject:
        return to_json(self)


def read_queue(content: JsonObject) -> Queue:
    """Read a queue.

    Raises:
        RecordError: it is not a queue, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(Queue, content)
