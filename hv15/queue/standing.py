"""How far the projects of a queue are, for a person who looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.queue.choice import is_run_by_hand
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject
from hv15.records.queue import Queue, QueuedProject, QueuedState
from hv15.runs import lock
from hv15.runs.metrics import trainings_since
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState, RunStatus, status

BY_HAND = "a run that was started by hand is in progress: waits for its end"

STARTING = "is looked at, then begins"

ENDING = "its run has ended, what is left of it ends too"


@dataclass(frozen=True)
class QueueStanding:
    """A project of the queue as it is now."""

    project: QueuedProject
    place: int = 0
    """Among those that wait; 1 is the next. 0: it does not wait."""
    note: str = ""
    """Why it waits, or how it ended; "" when there is nothing to add."""
    done: int = 0
    total: int = 0
    """Jobs of its run."""
    step: int = 0
    steps: int = 0
    """Of its training."""
    eta_s: float | None = None
    """Seconds that the training takes until its last step; None if that is not known, or it has done it."""

    @property
    def output(self) -> Path | None:
        """What its run printed; None before there is one."""
        path = RunFolder(self.project.root, self.project.run).output if self.project.run else None
        return path if path is not None and path.exists() else None

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return progress_in_words(self.done, self.total, self.step, self.steps)

    def as_json(self) -> JsonObject:
        """Return what `hv15 queue --json` says of it."""
        output = self.output
        return {
            **to_json(self.project),
            "place": self.place,
            "note": self.note,
            "jobs": {"done": self.done, "total": self.total},
            "training": {"step": self.step, "steps": self.steps, "eta_s": self.eta_s},
            "output": str(output) if output else None,
        }


def standing(queue: Queue, project: QueuedProject) -> QueueStanding:
    """Return how far a project is. Reads the files of its run if that is alive."""
    if project.state is QueuedState.WAITING:
        return QueueStanding(project, queue.place(project), _why_it_waits(queue, project))
    if project.state is not QueuedState.RUNNING:
        return QueueStanding(project, note=project.reason)
    found = status(RunFolder(project.root, project.run), lock.holder(project.root))
    training = next(iter(trainings_since(project.root, project.started or 0.0)), None)
    return QueueStanding(
        project,
        note=_what_it_does(found),
        done=found.done,
        total=found.total,
        step=training.step if training else 0,
        steps=training.total if training else 0,
        eta_s=(training.eta_s or None) if training else None,
    )


def _what_it_does(found: RunStatus) -> str:
    """Say what a project does besides running; "" if that is nothing."""
    if found.state is RunState.STOPPING:
        return "saves and stops"
    if found.state.alive:
        return ""
    return STARTING if found.record is None else ENDING


def _why_it_waits(queue: Queue, project: QueuedProject) -> str:
    """Say what a project waits for besides those before it; "" if there is nothing."""
    before = next((each for each in queue.running if each.root == project.root), None)
    if before is not None:
        return f"the same project is running as {before.number}: waits for its end"
    return BY_HAND if is_run_by_hand(project) else project.reason


def standings(queue: Queue) -> tuple[QueueStanding, ...]:
    """Return how far all are: what runs, what waits, what has ended."""
    return tuple(standing(queue, each) for each in queue.in_order())


def progress_in_words(done: int, total: int, step: int, steps: int) -> str:
    """Say how far a run is: its jobs that are done, and the steps of its training, each if there are any."""
    jobs = f"{done} of {total} jobs" if total else ""
    of = f" of {steps}" if steps else ""
    return ", ".join(filter(None, (jobs, f"step {step}{of}" if step else "")))


def mode_in_words(queue: Queue) -> str:
    """Say how many projects run at the same time."""
    if queue.per_device:
        return "one on each GPU"
    return "one after the other" if queue.at_once == 1 else f"{queue.at_once} at the same time"
