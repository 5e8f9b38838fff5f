"""`hv15 queue`: several projects on one machine, one after the other or one per GPU."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hv15.commands.options.queue import (
    QueueAdd,
    QueueClear,
    QueueList,
    QueueMode,
    QueueMove,
    QueuePause,
    QueueRemove,
    QueueResume,
    QueueRetry,
    QueueStop,
)
from hv15.commands.options.runs import Run
from hv15.commands.runs import overrides_settings, refuse_broken
from hv15.commands.targets import names_a_target
from hv15.errors import UserError
from hv15.gpus import VISIBLE, gpus
from hv15.progress import clock
from hv15.queue import changes
from hv15.queue.begin import ensure_worker
from hv15.queue.queue_file import QueueFile
from hv15.queue.standing import QueueStanding, mode_in_words, standings
from hv15.records.json_values import JsonObject
from hv15.records.paths import CONFIG
from hv15.records.queue import Queue, QueuedProject, QueuedState
from hv15.runs import control, lock
from hv15.runs.record import project_config
from hv15.terminal_text import json_text, one_line

DAY_S = 86400.0


def show(options: QueueList) -> None:
    """Print the queue; the worker is started again if it was killed."""
    file = QueueFile()
    if not options.json:
        _tell(file)
        return
    pid = ensure_worker(file)
    queue = file.read()
    print(json_text(_as_json(queue, standings(queue), pid)))


def add(options: QueueAdd) -> None:
    """Add projects.

    Raises:
        UserError: one of them cannot be run, and nothing is added; or there is no GPU for `--per-device`.
    """
    chosen = _mode(options.at_once, per_device=options.per_device)
    projects, targets = _split(options.words)
    targets = (*targets, *options.target)
    entries = _checked(projects, targets, options)
    file = QueueFile()
    before: list[Queue] = []

    def added(queue: Queue) -> Queue:
        before[:] = [queue]
        return changes.add(chosen(queue), entries)

    queue = file.change(added)
    ensure_worker(file)
    for entry in entries:
        own = next(each for each in queue.waiting if changes.same_request(each, entry))
        known = own.number < before[0].next_number
        said = "waits already" if known else "added"
        print(one_line(f"{said} as {own.number}: {_asked(own)}"))
    waits = "the queue is paused: `hv15 queue resume` continues it" if queue.paused else mode_in_words(queue)
    print(f"{waits}; they run on when you log out, and `hv15 queue` shows how far they are")


def remove(options: QueueRemove) -> None:
    """Remove projects.

    Raises:
        UserError: one is not in the queue, or runs.
    """
    _change(lambda queue: changes.remove(queue, changes.named(queue, options.names)))


def move(options: QueueMove) -> None:
    """Move a project.

    Raises:
        UserError: it does not wait, or the place is none.
    """
    to: int | changes.Step
    if options.to.isdecimal() and int(options.to) > 0:
        to = int(options.to)
    else:
        step = next((each for each in get_args(changes.Step) if each == options.to), None)
        if step is None:
            raise UserError(f"{options.to!r} is no place", hint="give a number from 1, or first, up, down or last")
        to = step

    def moved(queue: Queue) -> Queue:
        numbers = changes.named(queue, [options.project])
        waiting = [each.number for each in queue.waiting if each.number in numbers]
        return changes.move(queue, (waiting or numbers)[0], to)

    _change(moved)


def stop(options: QueueStop) -> None:
    """Ask running projects to save and stop.

    Raises:
        UserError: one is not in the queue, or does not run.
    """
    queue = QueueFile().read()
    numbers = changes.named(queue, options.names)
    chosen = [each for each in queue.running if each.number in numbers]
    if not chosen:
        raise UserError(f"{', '.join(options.names)}: does not run", hint="`hv15 queue remove` removes what waits")
    for each in chosen:
        if lock.holder(each.root) is None:
            raise UserError(f"{each.number} ({each.root}) is about to begin or has just ended", hint="try again soon")
        control.stop(each.root)
        print(one_line(f"{each.number}: asked to save and stop ({each.root})"))
    ensure_worker(QueueFile())


def retry(options: QueueRetry) -> None:
    """Let projects wait again.

    Raises:
        UserError: one is not in the queue, or has not ended.
    """

    def again(queue: Queue) -> Queue:
        failed = [each.number for each in queue.of(QueuedState.FAILED, QueuedState.STOPPED)]
        return changes.retry(queue, changes.named(queue, options.names) if options.names else failed)

    _change(again)


def clear(options: QueueClear) -> None:
    """Forget what has ended."""
    _change(changes.clear)


def pause(options: QueuePause) -> None:
    """Start no further project; with `--stop` also stop what runs, to continue it later."""
    file = QueueFile()

    def paused(queue: Queue) -> Queue:
        projects = queue.projects
        if options.stop:
            projects = tuple(
                replace(each, again=True) if each.state is QueuedState.RUNNING else each for each in projects
            )
        return replace(queue, paused=True, projects=projects)

    queue = file.change(paused)
    ensure_worker(file)
    for each in queue.running if options.stop else ():
        with suppress(UserError):  # it has just ended; or it is about to begin, and the worker stops it
            control.stop(each.root)
    _tell(file)


def resume(options: QueueResume) -> None:
    """Continue."""
    _change(lambda queue: replace(queue, paused=False))


def mode(options: QueueMode) -> None:
    """Say how many run at the same time.

    Raises:
        UserError: nothing, or something impossible, was said.
    """
    if options.at_once is None and not options.per_device:
        raise UserError("how many projects are to run at the same time?", hint="give --at-once N or --per-device")
    _change(_mode(options.at_once, per_device=options.per_device))


def _mode(at_once: int | None, *, per_device: bool) -> Callable[[Queue], Queue]:
    """Return what sets how many run at the same time; nothing is set without either."""
    if at_once is not None and per_device:
        raise UserError("--at-once and --per-device exclude one another", hint="give one of them")
    if at_once is not None and at_once < 1:
        raise UserError(f"--at-once {at_once}: expected a number from 1")
    if per_device:
        if not gpus():
            raise UserError(
                "--per-device: there is no GPU that may be used here",
                hint="without GPUs, `--at-once N` runs N projects at the same time",
            )
        return lambda queue: replace(queue, per_device=True, at_once=1)
    if at_once is not None:
        return lambda queue: replace(queue, per_device=False, at_once=at_once)
    return lambda queue: queue


def _split(words: tuple[str, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Divide words into projects, by default the one here, and targets, which come last."""
    first = next((place for place, word in enumerate(words) if names_a_target(Path(word))), len(words))
    return tuple(map(Path, words[:first])) or (Path(),), words[first:]


def _entry(project: Path, targets: tuple[str, ...], options: QueueAdd) -> QueuedProject:
    return QueuedProject(
        number=0,
        config=project_config(project),
        targets=targets,
        snakemake=options.snakemake,
        visible=os.environ.get(VISIBLE),
    )


def _checked(projects: tuple[Path, ...], targets: tuple[str, ...], options: QueueAdd) -> list[QueuedProject]:
    """Return the projects, each once, with the number of GPUs that each needs.

    Raises:
        UserError: one cannot be run; of several, the message names all.
    """
    checked, errors = dict[Path, QueuedProject](), list[UserError]()
    for project in projects:
        try:
            entry = _entry(project, targets, options)
            if entry.config in checked:
                continue
            if not options.unchecked:
                refuse_broken(Run(project=entry.config, target=entry.targets, snakemake=entry.snakemake))
            checked[entry.config] = replace(entry, gpus=_gpus_needed(entry))
        except UserError as error:
            errors.append(error)
    if not errors:
        return [*checked.values()]
    if len(projects) == 1:
        raise errors[0]
    [first, *others] = errors
    raise UserError(
        f"{len(errors)} of {len(projects)} projects cannot be run, so none was added:",
        lines=[line for each in errors for line in each.message.splitlines()],
        hint=first.hint if not others else "`hv15 check PROJECT` says more about each",
        place=first.place,
    )


def _gpus_needed(entry: QueuedProject) -> int:
    """Return how many GPUs one of a project's jobs needs at the same time.

    Raises:
        UserError: the config cannot be read.
    """
    from hv15.project import Project
    from hv15.workflow import asked_runs

    if overrides_settings(entry.snakemake):
        return 1
    asked = [each.settings for each in asked_runs(Project(entry.config), entry.targets)]
    return max(max(each.train.gpus_per_machine, each.sample.context_parallel) for each in asked)


def _change(change: Callable[[Queue], Queue]) -> None:
    """Change the queue, start its worker if there is something to do, and show the queue."""
    file = QueueFile()
    file.change(change)
    _tell(file)


def _tell(file: QueueFile) -> None:
    pid = ensure_worker(file)
    queue = file.read()
    found = standings(queue)
    print(one_line(_heading(queue, pid)))
    _print_table(found)
    for each in found:
        _print_details(each)


def _heading(queue: Queue, pid: int | None) -> str:
    if not queue.projects:
        return "the queue is empty; `hv15 queue add PROJECT...` adds projects"
    paused = "paused: `hv15 queue resume` continues it; " if queue.paused else ""
    worker = f"; worker: pid {pid}" if pid is not None else ""
    return f"{paused}{mode_in_words(queue)}{worker}"


def _print_table(found: Iterable[QueueStanding]) -> None:
    rows = [("no.", "state", "since", "took", "GPU", "project"), *map(_row, found)]
    if len(rows) == 1:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print(one_line("  ".join([*cells, row[-1]])).rstrip())


def _row(each: QueueStanding) -> tuple[str, ...]:
    project = each.project
    state = f"{project.state} ({each.place})" if each.place else str(project.state)
    begin = project.started if project.state is QueuedState.RUNNING else project.ended or project.added
    end = project.ended or (time.time() if project.state is QueuedState.RUNNING else None)
    took = clock(max(0.0, end - project.started)) if end is not None and project.started is not None else ""
    devices = project.devices or ((project.visible,) if project.visible else ())
    return (str(project.number), state, _when(begin), took, ",".join(devices), _asked(project))


def _when(seconds: float | None) -> str:
    if seconds is None:
        return ""
    form = "%H:%M:%S" if time.time() - seconds < DAY_S / 2 else "%d %b %H:%M"
    return time.strftime(form, time.localtime(seconds))


def _asked(project: QueuedProject) -> str:
    """The project and what is asked of it."""
    where = project.root if project.config.name == CONFIG else project.config
    words = [shlex.join(project.targets)] if project.targets else []
    words += [f"snakemake {shlex.join(project.snakemake)}"] if project.snakemake else []
    return f"{where}: {', '.join(words)}" if words else str(where)


def _print_details(each: QueueStanding) -> None:
    project = each.project
    lines = [words for words in (each.progress, each.note) if words]
    if project.cure and project.state is QueuedState.FAILED:
        lines.append(f"what to do: {project.cure}; then `hv15 queue retry {project.number}`")
    if (output := each.output) is not None and project.state in (QueuedState.RUNNING, QueuedState.FAILED):
        lines.append(f"output: {output}")
    for place, line in enumerate(lines):
        print(one_line(f"  {project.number}: {line}" if place == 0 else f"     {line}"))


def _as_json(queue: Queue, found: Iterable[QueueStanding], pid: int | None) -> JsonObject:
    return {
        "paused": queue.paused,
        "at_once": queue.at_once,
        "per_device": queue.per_device,
        "worker": pid,
        "projects": [each.as_json() for each in found],
    }
