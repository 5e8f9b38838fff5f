"""What `hv15 plan` computes for the steps that are run, in a process of its own, so that it disturbs no measurement."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Protocol

from hv15.environment import SAFE_PATH
from hv15.plan.cost import Cost


class PlannedWork(Protocol):
    """A step that the planner can run without data; it is hashable, and can be sent to another process."""

    def plan(self) -> Cost: ...


class PlannedCosts:
    """The planner's figures.

    Args:
        ahead: what to compute in another process from now on; it takes some ten seconds for a step of the real size.
            All else is computed when it is asked for.
    """

    def __init__(self, ahead: Iterable[PlannedWork] = ()) -> None:
        works = dict.fromkeys(ahead)
        self._process: ProcessPoolExecutor | None = None
        self._found: dict[PlannedWork, Future[Cost]] = {}
        if works:
            with _safe_path():
                self._process = ProcessPoolExecutor(1, get_context("spawn"), _leave_interrupts)
                self._found = {work: self._process.submit(_plan, work) for work in works}

    def of(self, work: PlannedWork) -> Cost:
        """Return what a step takes, as soon as it is known."""
        try:
            return self._found[work].result() if work in self._found else work.plan()
        except BrokenProcessPool:  # it was killed: the machine may have little memory
            return work.plan()

    def close(self) -> None:
        """Compute no more, and end the other process."""
        if self._process is not None:
            self._process.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()


@contextmanager
def _safe_path() -> Iterator[None]:
    """While active, a new Python process does not look for modules in the current folder, which may be of clips."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


def _leave_interrupts() -> None:
    """Ctrl-C reaches this process, too; it is for the one that waits for the plans."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _plan(work: PlannedWork) -> Cost:
    return work.plan()
