"""When a dashboard in a test has nothing left to do: what a pilot waits for after each key.

Textual's own answer is a guess from the processor time of the last 20 ms, twice for each key; it takes long, and on a
busy machine it is wrong. The event loop knows: nothing in it is ready to run, and no timer is about to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from textual.screen import Screen

SOON_S = 0.035
"""Timers that end within this are waited for: a screen is painted after at most 1/60 s."""
THREADS_S = 0.05
"""Threads that do nothing are waited for no longer: a test may hold one up on purpose."""
ROUNDS = 3
"""So many times in a row nothing must be ready: what a widget posts may take two rounds to reach another."""


class Threads(ThreadPoolExecutor):
    """Threads, as of `asyncio.to_thread`, and which of them are at work."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.at_work: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *words: Any, **named: Any) -> Future[Any]:
        future = super().submit(fn, *words, **named)
        self.at_work.add(future)
        future.add_done_callback(self.at_work.discard)
        return future


def at_work() -> bool:
    """Whether any thread of this loop is at work."""
    threads = asyncio.get_running_loop()._default_executor  # type: ignore[attr-defined]
    return isinstance(threads, Threads) and bool(threads.at_work)


def spent() -> int:
    """Nanoseconds in which other threads of this process computed, or could have, if the machine had let them."""
    total, own = 0, str(threading.get_native_id())
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if task.name != own:
                total += sum(map(int, (task / "schedstat").read_text().split()[:2]))
    return total


paint = Screen._compositor_refresh
TO_PAINT: WeakSet[Screen[Any]] = WeakSet()
"""Screens whose painting is put off until all else is done: nobody sees what comes between two keys."""


def put_off(screen: Screen[Any]) -> None:
    """Stands for `Screen._compositor_refresh`."""
    TO_PAINT.add(screen)


def paint_all() -> bool:
    """Paint what was put off; return whether there was any."""
    screens = [*TO_PAINT]
    TO_PAINT.clear()
    for screen in screens:
        if screen.is_running:
            with screen._context():
                paint(screen)
    return bool(screens)


async def idle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Stands for `textual._wait.wait_for_idle`."""
    loop: Any = asyncio.get_running_loop()
    start, rounds = time.monotonic(), 0
    while rounds < ROUNDS and (passed := time.monotonic() - start) < max_sleep:
        await asyncio.sleep(0)
        ends = min((timer.when() for timer in loop._scheduled if not timer.cancelled()), default=float("inf"))
        left = ends - loop.time()
        if loop._ready:
            rounds = 0
        elif left < SOON_S:
            await asyncio.sleep(max(0.0, left))
            rounds = 0
        elif at_work():
            before = spent()
            await asyncio.sleep(0.002)
            rounds = 0 if passed < THREADS_S or spent() - before > 100_000 else rounds + 1
        else:
            rounds += 1
        if rounds == ROUNDS and paint_all():
            rounds = 0


def wait_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pilots wait so."""
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", Threads)  # a loop takes its threads from there
    for module in ("textual._wait", "textual.pilot", "textual.app"):
        monkeypatch.setattr(f"{module}.wait_for_idle", idle)
    monkeypatch.setattr(Screen, "_compositor_refresh", put_off)
