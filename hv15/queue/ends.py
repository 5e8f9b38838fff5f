"""How the run of a project in the queue ended."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hv15.records.fields import now
from hv15.records.queue import QueuedProject, QueuedState
from hv15.runs import control, lock
from hv15.runs.failures import explain_job
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState, RunStatus, status, was_before_restart

PATIENCE_S = 300.0
"""How long the processes of a killed run may take to save and end, before they are killed."""


@dataclass(frozen=True)
class End:
    """What becomes of a project whose run is over."""

    state: QueuedState
    """WAITING: it is to be run again."""
    reason: str = ""
    cure: str = ""
    time: float = 0.0
    """Seconds since 1970."""


def end_of(project: QueuedProject, asked: dict[str, float], *, after_gap: bool = False) -> End | None:
    """Return how a project's run ended; None while it is alive, or processes of it are left.

    Args:
        asked: when the processes that killed runs left were asked to end, by run; it is kept up to date.
        after_gap: whether nobody has seen it alive, because the worker was killed or the machine restarted. A run
            that died then, or was never started, is to be run again; one that dies while it is watched has failed.
    """
    root, holder = project.root, lock.holder(project.root)
    if holder in ("", project.run):  # "": it has just begun
        return None
    found = status(RunFolder(root, project.run), holder)
    if found.state.alive:
        return None
    if found.record is None and found.state is RunState.DIED:  # it was not started
        return End(QueuedState.WAITING)
    if found.state is RunState.DIED and holder is None and _is_left(project, asked):
        return None
    ended = found.ended or now()
    if found.state is RunState.FINISHED:
        return End(QueuedState.DONE, found.reason, time=ended)
    if after_gap and not found.run.stop.exists() and _was_cut(found):
        return End(QueuedState.WAITING, f"its run was cut short: {found.reason}")
    if found.state is RunState.STOPPED:
        return End(QueuedState.STOPPED, found.reason, time=ended)
    return _failure(found, ended)


def _was_cut(found: RunStatus) -> bool:
    """Whether a run ended for a reason that has nothing to do with it."""
    return found.state is not RunState.FAILED or (found.record is not None and was_before_restart(found.record))


def _is_left(project: QueuedProject, asked: dict[str, float]) -> bool:
    """Whether processes of a killed run still work. They are asked once to save and end; after a while, killed."""
    if not control.orphans(project.root):
        return False
    since = asked.get(project.run)
    if since is None:
        asked[project.run] = time.monotonic()
        control.end_orphans(project.root)  # a second request would not let a training save its state
    elif time.monotonic() - since > PATIENCE_S:
        control.end_orphans(project.root, now=True)
    return True


def _failure(found: RunStatus, ended: float) -> End:
    """Return the end of a run that failed, with the cause of its first job that did."""
    failed = next((each for each in found.failed if not each.stopped), None)
    if failed is not None:
        failure = explain_job(found.run.root, failed.job, failed.failure)
        return End(QueuedState.FAILED, f"{failed.job.name}: {failure.cause.splitlines()[0]}", failure.cure, ended)
    cure = found.failure.cure if found.failure is not None else "its output says more"
    return End(QueuedState.FAILED, found.reason, cure, ended)
