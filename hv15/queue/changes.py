"""What people change in a queue. Each function takes a queue and returns the changed one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hv15.errors import UserError
from hv15.records.fields import now
from hv15.records.queue import Queue, QueuedProject, QueuedState

MOST_ENDED = 200
"""Of more projects that have ended, the oldest are forgotten."""
Step = Literal["first", "up", "down", "last"]


def same_request(one: QueuedProject, other: QueuedProject) -> bool:
    """Whether two entries ask for the same."""
    return _request(one) == _request(other)


def _request(project: QueuedProject) -> tuple[object, ...]:
    return project.config, project.targets, project.snakemake, project.visible


def add(queue: Queue, projects: Iterable[QueuedProject]) -> Queue:
    """Add projects at the end; their numbers are given here. What already waits for the same is not added again.

    A project that has ended and asked for the same makes room for the new one.
    """
    entries, number = [*queue.projects], queue.next_number
    for project in projects:
        if any(each.state is QueuedState.WAITING and same_request(each, project) for each in entries):
            continue
        entries = [each for each in entries if not (each.has_ended and same_request(each, project))]
        entries.append(replace(project, number=number, state=QueuedState.WAITING, added=now()))
        number += 1
    return replace(queue, projects=tuple(entries), next_number=number)


def named(queue: Queue, names: Collection[str]) -> list[int]:
    """Return the numbers of the projects that are named: by number, or by folder or config file.

    Raises:
        UserError: a name is not in the queue.
    """
    found: list[int] = []
    for name in names:
        numbers = [each.number for each in queue.projects if str(each.number) == name]
        if not numbers:
            place = Path(name)
            numbers = [
                each.number for each in queue.projects if _is_same(place, each.root) or _is_same(place, each.config)
            ]
        if not numbers:
            raise UserError(f"{name}: is not in the queue", hint="`hv15 queue` lists what is, with its numbers")
        found += [number for number in numbers if number not in found]
    return found


def _is_same(place: Path, other: Path) -> bool:
    """Whether two paths, which may lead over links, name the same place; it may be gone."""
    return os.path.realpath(place) == os.path.realpath(other)


def remove(queue: Queue, numbers: Collection[int]) -> Queue:
    """Remove projects that do not run.

    Raises:
        UserError: one runs.
    """
    for each in queue.running:
        if each.number in numbers:
            raise UserError(
                f"{each.number} ({each.root}) is running",
                hint=f"`hv15 queue stop {each.number}` stops it first; a training saves its state",
            )
    return replace(queue, projects=tuple(each for each in queue.projects if each.number not in numbers))


def clear(queue: Queue) -> Queue:
    """Remove all that have ended."""
    return replace(queue, projects=tuple(each for each in queue.projects if not each.has_ended))


def retry(queue: Queue, numbers: Collection[int]) -> Queue:
    """Let projects that have ended wait again, behind the others.

    Raises:
        UserError: one has not ended.
    """
    for each in queue.projects:
        if each.number in numbers and not each.has_ended:
            raise UserError(f"{each.number} ({each.root}) is {each.state}", hint="only what has ended is run again")
    chosen = [waiting_again(each) for each in queue.projects if each.number in numbers]
    others = [each for each in queue.projects if each.number not in numbers]
    return replace(queue, projects=(*others, *chosen))


def waiting_again(project: QueuedProject, reason: str = "") -> QueuedProject:
    """Return a project as if it had not been started yet."""
    return replace(
        project,
        state=QueuedState.WAITING,
        reason=reason,
        cure="",
        started=None,
        ended=None,
        run="",
        devices=(),
        again=False,
    )


def move(queue: Queue, number: int, to: int | Step) -> Queue:
    """Move a project that waits.

    Args:
        to: its new place among those that wait, from 1; or where to from its old one.

    Raises:
        UserError: it does not wait.
    """
    waiting = [*queue.waiting]
    old = next((place for place, each in enumerate(waiting) if each.number == number), None)
    if old is None:
        state = next((each.state for each in queue.projects if each.number == number), "gone")
        raise UserError(f"{number} is {state}", hint="only a project that waits can be moved")
    places = {"first": 0, "up": old - 1, "down": old + 1, "last": len(waiting)}
    new = places[to] if isinstance(to, str) else to - 1
    moved = waiting.pop(old)
    waiting.insert(max(0, new), moved)
    return _with_waiting(queue, waiting)


def _with_waiting(queue: Queue, waiting: Sequence[QueuedProject]) -> Queue:
    """Return a queue with those that wait in another order, at the places of those that waited."""
    order = iter(waiting)
    projects = [next(order) if each.state is QueuedState.WAITING else each for each in queue.projects]
    return replace(queue, projects=tuple(projects))


def replaced(queue: Queue, project: QueuedProject) -> Queue:
    """Return a queue in which a project is as given; the same queue if it has none of that number."""
    projects = tuple(project if each.number == project.number else each for each in queue.projects)
    return replace(queue, projects=projects)


def without_oldest(queue: Queue) -> Queue:
    """Forget the oldest of very many projects that have ended."""
    ended = sorted((each for each in queue.projects if each.has_ended), key=lambda each: each.ended or 0.0)
    return remove(queue, {each.number for each in ended[:-MOST_ENDED]})
