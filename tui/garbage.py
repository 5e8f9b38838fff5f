"""Python's garbage collection, at times when nobody waits for it.

A full search looks at every object, some 300,000 here, and stops all threads meanwhile: 170 ms were measured in the
middle of a keystroke. So it runs when nothing has been typed for a while. Objects from the start of the program live as
long as it does and are not searched again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

CHECK_S = 2.0
"""How often to check whether a search is due."""
QUIET_S = 4.0
"""How long after the last key or click."""
EVERY_S = 60.0
"""The least time between two searches."""
LATEST_S = 900.0
"""The most time between two searches, even if somebody types."""
YOUNG = 10
"""How many searches among newer objects come before one among all: Python's own rule."""
NEVER = 2**30


class Garbage:
    """Searches at quiet times from `begin` to `end`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._touched = self._searched = clock()
        self._before: tuple[int, int, int] | None = None

    def begin(self) -> None:
        """Take over from Python's own collector."""
        self._before = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(self._before[0], self._before[1], NEVER)

    def end(self) -> None:
        """Hand back to Python's own collector."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None

    def note_input(self) -> None:
        """Note that somebody has typed or clicked."""
        self._touched = self._clock()

    def search_if_due(self) -> bool:
        """Search if it is time; return whether it was."""
        now = self._clock()
        since = now - self._searched
        quiet = since >= EVERY_S and now - self._touched >= QUIET_S
        if gc.get_count()[2] < YOUNG or not (quiet or since >= LATEST_S):
            return False
        gc.collect()
        self._searched = self._clock()
        return True
