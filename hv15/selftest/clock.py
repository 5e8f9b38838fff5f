"""How long work takes: by the GPU's own events, or by the processor's clock."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

LONG = 3.0
"""Seconds after which a first run counts as it is, and is not repeated."""
ENOUGH = 1.0
"""Seconds for which shorter work is repeated."""
MOST_REPEATS = 50


class Clock:
    """The processor's: an operation is done when its call returns."""

    def seconds(self, work: Callable[[], object]) -> float | None:
        """The time of a call in seconds, after a first one that is not counted unless it was long; None: not known."""
        first = self.timed(work, 1)
        if first is None or first > LONG:
            return first
        once = self.timed(work, 1)
        repeats = min(MOST_REPEATS, int(ENOUGH / max(once or 0.0, ENOUGH / MOST_REPEATS)))
        return once if repeats < 2 else self.timed(work, repeats)

    def timed(self, work: Callable[[], object], repeats: int) -> float | None:
        """The seconds of the fastest of so many calls: what other programs take makes a call slower, never faster."""
        return min(self._once(work) for _ in range(repeats))

    @staticmethod
    def _once(work: Callable[[], object]) -> float:
        start = perf_counter()
        work()
        return perf_counter() - start

    def wait(self) -> None:
        """Wait until all queued work is done."""


class CudaClock(Clock):
    """A GPU's: events between its own operations, so that what is queued is timed until it is done.

    Calls follow one another without a pause, as in a training, and their mean counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def timed(self, work: Callable[[], object], repeats: int) -> float | None:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        self.wait()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1000 / repeats

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)


class NoClock(Clock):
    """For a device without data: the work is run once, and its time is not known."""

    def timed(self, work: Callable[[], object], repeats: int) -> float | None:
        work()
        return None

    def seconds(self, work: Callable[[], object]) -> float | None:
        return self.timed(work, 1)


def clock_of(device: torch.device, *, has_data: bool) -> Clock:
    """Return the clock of a device."""
    if not has_data:
        return NoClock()
    return CudaClock(device) if device.type == "cuda" else Clock()
