"""Queues and runs that are made up: no process is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from hv15.atomic import write_json
from hv15.queue.queue_file import QueueFile
from hv15.records.events import RunEnded, RunEvent
from hv15.records.fields import to_json
from hv15.records.paths import CONFIG
from hv15.records.queue import Queue, QueuedProject, QueuedState
from hv15.runs import lock
from hv15.runs.record import RunFolder, append_event

DONE = RunEnded(done=2, total=2)


def project(
    number: int = 0, root: Path | str = "", state: QueuedState = QueuedState.WAITING, **more: Any
) -> QueuedProject:
    """Return a project of a queue, in a folder that need not exist."""
    folder = Path(root) if root else Path(f"/projects/{number}")
    return QueuedProject(number=number, config=folder / CONFIG, state=state, **more)


def queue(*projects: QueuedProject, **more: Any) -> Queue:
    """Return a queue of these."""
    return Queue(projects=projects, next_number=1 + max((each.number for each in projects), default=0), **more)


def order(found: Queue) -> list[int]:
    """The numbers of those that wait."""
    return [each.number for each in found.waiting]


def states(found: Queue) -> dict[int, str]:
    return {each.number: str(each.state) for each in found.projects}


def keep(file: QueueFile, found: Queue) -> None:
    """Let the queue be this."""
    file.change(lambda _: found)


def record_run(root: Path, run_id: str, *events: RunEvent, restarted: bool = False) -> RunFolder:
    """Write what a run leaves that is over; `restarted`: it was before the machine was started."""
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG).write_text("task: t2v\n")
    run = RunFolder(root, run_id)
    run.create(root / CONFIG)
    record = run.write_record(os.getpid(), ["snakemake"], ["all"])
    past = psutil.boot_time() - 10_000.0
    over = replace(record, pid=2**22 + 1, boot_time=past if restarted else record.boot_time)
    write_json(run.record_file, to_json(replace(over, started=past + 60) if restarted else over))
    for event in events:
        append_event(run.events, event)
    return run


@contextmanager
def run_by_hand(root: Path, run_id: str = "by-hand") -> Iterator[None]:
    """While active, a run of the project is alive."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = lock.take(root, run_id)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)
