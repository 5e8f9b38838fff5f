"""Python's search for garbage, at times when nobody waits for it.

A full search looks at every object there is, some 300,000 here, and all threads stand still meanwhile: 170 ms were
seen, in the middle of a key. So it is done when nothing was typed for a while. What there is at the start stays as long
as the program, and is not looked at again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

LOOK_S = 2.0
"""How often to ask whether it is time."""
QUIET_S = 4.0
"""So long after the last key or click."""
EVERY_S = 60.0
"""And never more often."""
LATEST_S = 900.0
"""At the latest so long after the last search, whatever is typed."""
YOUNG = 10
"""So many searches among newer objects before one among all: Python's own rule."""
NEVER = 2**30


class Garbage:
    """Searches at quiet times from `begin` to `end`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._touched = self._searched = clock()
        self._before: tuple[int, int, int] | None = None

    def begin(self) -> None:
        """Take the searching over from Python."""
        self._before = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(self._before[0], self._before[1], NEVER)

    def end(self) -> None:
        """Give it back."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None

    def touched(self) -> None:
        """Somebody typed or clicked."""
        self._touched = self._clock()

    def look(self) -> bool:
        """Search if it is time; tell whether it was."""
        now = self._clock()
        since = now - self._searched
        quiet = since >= EVERY_S and now - self._touched >= QUIET_S
        if gc.get_count()[2] < YOUNG or not (quiet or since >= LATEST_S):
            return False
        gc.collect()
        self._searched = self._clock()
        return True
