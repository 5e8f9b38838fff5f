"""Which project of a queue comes next, and on which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.gpus import gpus_in, is_taken
from hv15.records.queue import Queue, QueuedProject
from hv15.runs import lock


@dataclass(frozen=True)
class NextProject:
    """A project that can be started now."""

    project: QueuedProject
    devices: tuple[str, ...] = ()
    """Its GPUs, as CUDA_VISIBLE_DEVICES names them; empty if it gets all."""


def next_project(queue: Queue) -> NextProject | None:
    """Return what to start now; None if nothing can be.

    None is started before another that waits longer, with one exception: a project of which another entry runs waits
    for that, and lets others pass. A project that somebody runs by hand holds its place until that run has ended.
    """
    if queue.paused:
        return None
    at_work: set[Path] = {each.root for each in queue.running}
    places = len(queue.running)
    for project in queue.waiting:
        if not queue.per_device and places >= queue.at_once:
            return None
        if project.root in at_work:
            continue
        if is_run_by_hand(project):
            at_work.add(project.root)
            places += 1
            continue
        if not queue.per_device:
            return NextProject(project)
        return _on_devices(queue, project)
    return None


def is_run_by_hand(project: QueuedProject) -> bool:
    """Whether a run of a project that waits is alive: somebody has started it beside the queue."""
    return lock.holder(project.root) is not None


def _on_devices(queue: Queue, project: QueuedProject) -> NextProject | None:
    """Return a project with GPUs of its own; None while too few are free."""
    names = gpus_in(project.visible)
    if not names:  # on the CPU, one after the other
        return None if queue.running else NextProject(project)
    if any(not each.devices for each in queue.running):  # it has all of them
        return None
    used = {name for each in queue.running for name in each.devices}
    free = [name for name in names if name not in used and not is_taken(name)]
    needed = min(project.gpus, len(names))
    return NextProject(project, tuple(free[:needed])) if len(free) >= needed else None
