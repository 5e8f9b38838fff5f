"""All projects that this user works on here: those in the queue, and others that are known, with what each does now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hv15.cache.register import registered
from hv15.config import load_config
from hv15.errors import UserError
from hv15.queue.begin import ensure_worker, worker_pid
from hv15.queue.changes import Step, clear, move, remove, retry
from hv15.queue.queue_file import QueueFile
from hv15.queue.standing import QueueStanding, mode_in_words, progress_in_words, standing
from hv15.records.paths import CONFIG, ProjectPaths
from hv15.records.queue import Queue, QueuedState
from hv15.runs import control, lock
from hv15.runs.metrics import trainings_since
from hv15.runs.own_process import run_command
from hv15.runs.state import RunState, RunStatus, current
from hv15.stamp import Stamp, stamp

IDLE = "idle"
"""The state of a project that has had no run yet."""


@dataclass(frozen=True)
class ProjectRow:
    """A project, or one of several requests for it in the queue."""

    config: Path
    state: str
    """Of the queue or, outside of it, of the last run."""
    number: int = 0
    """In the queue; 0: it is not in it."""
    place: int = 0
    """Among those that wait; 0: it does not."""
    progress: str = ""
    eta_s: float | None = None
    since: float | None = None
    """When it began to wait, to run, or ended: seconds since 1970."""
    note: str = ""
    cure: str = ""
    devices: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    output: Path | None = None
    """What its run printed."""
    is_watched: bool = False
    """Whether it is the one that this dashboard shows."""

    @property
    def root(self) -> Path:
        return self.config.parent

    @property
    def name(self) -> str:
        """Its folder's name; for a config file of another name, with that."""
        return self.root.name if self.config.name == CONFIG else f"{self.root.name}/{self.config.name}"

    @property
    def waits(self) -> bool:
        return self.place > 0

    @property
    def runs_from_queue(self) -> bool:
        return self.number > 0 and self.state == QueuedState.RUNNING


@dataclass(frozen=True)
class ProjectsView:
    """All of them."""

    rows: tuple[ProjectRow, ...] = ()
    mode: str = ""
    """How many of the queue run at the same time, in words."""
    paused: bool = False
    worker: int | None = None
    """The process id of the queue's worker; None if there is none."""
    has_work: bool = False
    error: str = ""


class ProjectsReader:
    """Reads the queue, and the runs of the projects that are known.

    Args:
        config: that of the project which the dashboard shows.
    """

    def __init__(self, config: Path) -> None:
        self._config = config
        self._read: Stamp | None = None
        self._store: Path | None = None

    def read(self) -> ProjectsView:
        """Return all projects as they are now: the queue in its order, then the others."""
        file, queue, error = None, Queue(), ""
        try:
            file = QueueFile()
            queue = file.read()
        except UserError as caught:
            error = str(caught)
        rows = [self._queued(standing(queue, each)) for each in queue.in_order()]
        rows += self._others(queue)
        worker = worker_pid(file) if file is not None else None
        return ProjectsView(tuple(rows), mode_in_words(queue), queue.paused, worker, queue.has_work, error)

    def _queued(self, found: QueueStanding) -> ProjectRow:
        project = found.project
        begun = project.started if project.state is QueuedState.RUNNING else project.ended
        return ProjectRow(
            config=project.config,
            state=str(project.state),
            number=project.number,
            place=found.place,
            progress=found.progress,
            eta_s=found.eta_s,
            since=begun or project.added,
            note=found.note,
            cure=project.cure if project.state is QueuedState.FAILED else "",
            devices=project.devices,
            targets=project.targets,
            output=found.output,
            is_watched=project.config == self._config,
        )

    def _others(self, queue: Queue) -> Iterator[ProjectRow]:
        """Yield those that are not in the queue, or whose run there has ended and that run by hand now."""
        known = {self._config.parent: self._config}
        store = self._store_folder()
        for each in registered(store) if store is not None else ():
            if (each.root / CONFIG).is_file():
                known.setdefault(each.root, each.root / CONFIG)
        at_work = {each.root for each in (*queue.running, *queue.waiting)}
        ended = {each.root for each in queue.projects if each.has_ended}
        for root, config in known.items():
            if root in at_work or (root in ended and lock.holder(root) is None):
                continue
            yield self._row(config, current(root))

    def _row(self, config: Path, found: RunStatus | None) -> ProjectRow:
        if found is None:
            return ProjectRow(config=config, state=IDLE, is_watched=config == self._config)
        alive = found.state.alive
        trainings = trainings_since(config.parent, found.started) if alive and found.started else []
        training = next(iter(trainings), None)
        step, steps = (training.step, training.total) if training and training.total else (0, 0)
        return ProjectRow(
            config=config,
            state=str(found.state),
            progress=progress_in_words(found.done, found.total, step, steps),
            eta_s=(training.eta_s or None) if training else None,
            since=found.started if alive else found.ended,
            note="" if found.state is RunState.FINISHED else found.reason,
            targets=found.record.targets if found.record else (),
            output=found.run.output if found.run.output.exists() else None,
            is_watched=config == self._config,
        )

    def _store_folder(self) -> Path | None:
        """The folder of the store of the watched project, where others that use it are noted."""
        now = stamp(self._config)
        if now != self._read:
            self._read = now
            try:
                self._store = ProjectPaths(self._config.parent).root / load_config(self._config).cache.directory
            except UserError:
                self._store = None
        return self._store


def add_to_queue(config: Path) -> str:
    """Add a project as `hv15 queue add` does, and return in one line what was done. Takes seconds: for a thread.

    Raises:
        UserError: it cannot be run.
    """
    return run_command(["queue", "add", str(config)], config.parent).partition("\n")[0]


def change_queue(change: Callable[[Queue], Queue]) -> None:
    """Change the queue; its worker is started if there is something to do and none lives.

    Raises:
        UserError: the queue cannot be changed, or the worker cannot be started; or as `change`.
    """
    file = QueueFile()
    file.change(change)
    ensure_worker(file)


def remove_from_queue(number: int) -> None:
    """Remove what does not run.

    Raises:
        UserError: it runs; or as `change_queue`.
    """
    change_queue(lambda queue: remove(queue, [number]))


def move_in_queue(number: int, step: Step) -> None:
    """Move what waits.

    Raises:
        UserError: it does not wait; or as `change_queue`.
    """
    change_queue(lambda queue: move(queue, number, step))


def retry_in_queue(number: int) -> None:
    """Let what has ended wait again.

    Raises:
        UserError: it has not ended; or as `change_queue`.
    """
    change_queue(lambda queue: retry(queue, [number]))


def clear_queue() -> None:
    """Forget what has ended.

    Raises:
        UserError: as `change_queue`.
    """
    change_queue(clear)


def pause_queue(*, paused: bool) -> None:
    """Start no further project, or continue.

    Raises:
        UserError: as `change_queue`.
    """
    change_queue(lambda queue: replace(queue, paused=paused))


def stop_project(root: Path) -> None:
    """Ask a project's run to save and stop.

    Raises:
        UserError: nothing runs.
    """
    control.stop(root)
