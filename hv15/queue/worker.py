"""The worker of the queue: starts the projects, watches their runs, and ends when nothing is left.

`python -m hv15.queue.worker FOLDER`, as `hv15.queue.begin` starts it. What it knows is in the queue's file: when it is
killed, the next one continues, and the runs, which are processes of their own, have not noticed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from hv15.environment import NEW_RUN_VARIABLE
from hv15.errors import USER_ERROR, UserError
from hv15.gpus import VISIBLE
from hv15.own_files import open_own
from hv15.queue import changes
from hv15.queue.choice import NextProject, next_project
from hv15.queue.ends import End, end_of
from hv15.queue.queue_file import QueueFile
from hv15.records.fields import now
from hv15.records.queue import Queue, QueuedProject, QueuedState
from hv15.runs import control, lock
from hv15.runs.own_process import run_command
from hv15.runs.record import new_run
from hv15.terminal_text import one_line

POLL_S = 0.5
"""How often it looks."""
TROUBLE_S = 10.0
"""How long it waits after an error, such as a full disk."""


class Worker:
    """Does what the queue asks for, step by step.

    Args:
        file: the queue.
        lock: the descriptor of its lock, which the start of a run keeps as well.
    """

    def __init__(self, file: QueueFile, lock: int) -> None:
        self._file, self._lock = file, lock
        self._watched = set[str]()
        """The runs that were alive in the time of this worker."""
        self._asked: dict[str, float] = {}

    def step(self) -> bool:
        """Look at what runs, and start what comes next; return whether there is more to do."""
        queue = self._file.read()
        ends = {each.number: end for each in queue.running if (end := self._end_of(each))}
        for number, end in ends.items():
            _log(f"{number}: {end.state}", end.reason)
        if ends:
            queue = self._file.change(lambda queue: changes.without_oldest(_with_ends(queue, ends)))
        if next_project(queue) is not None and (project := self._begin_next()) is not None:
            self._start(project)
            return True
        return queue.has_work or self._has_work_at_last()

    def _end_of(self, project: QueuedProject) -> End | None:
        if lock.holder(project.root) == project.run:
            self._watched.add(project.run)
        return end_of(project, self._asked, after_gap=project.run not in self._watched)

    def _begin_next(self) -> QueuedProject | None:
        """Record which project is started next, and under which id; None if somebody else was quicker to change it."""
        begun: QueuedProject | None = None

        def begin(queue: Queue) -> Queue:
            nonlocal begun
            choice = next_project(queue)
            begun = None if choice is None else _begun(choice)
            return queue if begun is None else changes.replaced(queue, begun)

        self._file.change(begin)
        return begun

    def _start(self, project: QueuedProject) -> None:
        """Start a project as `hv15 run` does. If it refuses, that is how the project ends."""
        words = [f"--target={each}" for each in project.targets]
        words += ["--snakemake", *project.snakemake] if project.snakemake else []
        visible = ",".join(project.devices) if project.devices else project.visible
        _log(f"{project.number}: starts {project.root}", f"{VISIBLE}={visible}" if visible is not None else "")
        try:
            run_command(
                ["run", str(project.config), *words],
                project.root if project.root.is_dir() else self._file.folder,
                variables={NEW_RUN_VARIABLE: project.run, VISIBLE: visible},
                keep_open=[self._lock],
            )
        except (UserError, OSError) as error:
            self._refused(project, error)
            return
        self._watched.add(project.run)
        if any(each.number == project.number and each.again for each in self._file.read().running):
            with suppress(UserError):  # it has ended already
                control.stop(project.root)  # whoever paused the queue meanwhile could not

    def _refused(self, project: QueuedProject, error: UserError | OSError) -> None:
        if lock.holder(project.root) not in (None, project.run):  # somebody was quicker to start it by hand
            after = changes.waiting_again(project)
        else:
            message = error.message if isinstance(error, UserError) else str(error)
            hint = error.hint if isinstance(error, UserError) else ""
            after = replace(project, state=QueuedState.FAILED, reason=message, cure=hint, ended=now())
            _log(f"{project.number}: cannot be run", message)
        self._file.change(lambda queue: changes.replaced(queue, after))

    def _has_work_at_last(self) -> bool:
        """Whether there is something to do after all; if not, the worker's lock is free before anybody can add more."""
        descriptor = self._file.take_lock()
        try:
            if self._file.read().has_work:
                return True
            os.ftruncate(self._lock, 0)  # its number may soon be that of another program
            os.close(self._lock)
            return False
        finally:
            os.close(descriptor)


def _begun(choice: NextProject) -> QueuedProject:
    """Return a project as it is when it is about to be started."""
    return replace(
        choice.project,
        state=QueuedState.RUNNING,
        reason="",
        cure="",
        started=now(),
        ended=None,
        run=new_run(choice.project.root).id,
        devices=choice.devices,
    )


def _with_ends(queue: Queue, ends: dict[int, End]) -> Queue:
    for project in queue.running:
        if (end := ends.get(project.number)) is not None:
            queue = changes.replaced(queue, _ended(project, end))
    return queue


def _ended(project: QueuedProject, end: End) -> QueuedProject:
    if end.state is QueuedState.WAITING:
        return changes.waiting_again(project, end.reason)
    if project.again and end.state is QueuedState.STOPPED:
        return changes.waiting_again(project, f"was stopped ({end.reason}): continues from there")
    return replace(project, state=end.state, reason=end.reason, cure=end.cure, ended=end.time, again=False)


def _log(what: str, reason: str = "") -> None:
    words = f"{what} ({one_line(reason)})" if reason else what
    print(time.strftime("%Y-%m-%d %H:%M:%S"), one_line(words), flush=True)


def take_worker_lock(file: QueueFile) -> int | None:
    """Return the descriptor of the worker's lock; None if another worker lives.

    While a run is being started for a worker that was killed, this waits for its end.

    Raises:
        OSError: the lock cannot be had.
    """
    descriptor = open_own(file.worker_lock, os.O_RDWR)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            if holder.isdecimal() and psutil.pid_exists(int(holder)):
                os.close(descriptor)
                return None
            time.sleep(POLL_S / 10)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def main(folder: Path) -> int:
    """Work until nothing is left."""
    # A handler, unlike ignoring the signal, is not inherited by the runs.
    signal.signal(signal.SIGHUP, lambda *_: None)
    file = QueueFile(folder)
    try:
        descriptor = take_worker_lock(file)
    except OSError as error:
        print(f"error: {file.worker_lock}: {error.strerror or error}", file=sys.stderr)
        return USER_ERROR
    if descriptor is None:
        return 0
    _log(f"worker {os.getpid()} begins")
    worker, more = Worker(file, descriptor), True
    while more:
        try:
            more = worker.step()
        except UserError as error:
            _log("trouble", str(error))
            time.sleep(TROUBLE_S)
        else:
            time.sleep(POLL_S if more else 0)
    _log(f"worker {os.getpid()} ends: there is nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
