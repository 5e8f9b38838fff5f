"""Windows of tokens: operations on single tokens are computed for one window at a time.

So their intermediate results (an MLP's are four times as wide as the tokens) stay small however long the video is.
Code that depends on a token's position in the whole sequence, such as dropout, gets it from `current_window`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

MOST_TOKENS = 8192
"""Most tokens in a window of training: more would not make a GPU's matrix products faster."""
SAMPLING_WINDOW = 1.5
"""How many times as many are in a window of sampling, which keeps fewer results: each window reads all weights of a
block. In training, both passes have windows of one size, so that `compile` compiles for one."""
_MULTIPLE = 64  # of tokens, so that a window's matrix products fill the tiles of a GPU

_thread = threading.local()


class Window(NamedTuple):
    """Tokens `start` to `stop` of `total`."""

    start: int
    stop: int
    total: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def windows(total: int, most: int = MOST_TOKENS) -> list[Window]:
    """Divide `total` tokens into as few windows of at most `most` as possible, of equal size except for the last."""
    if total <= most:
        return [Window(0, total, total)]
    size = math.ceil(total / math.ceil(total / most))
    size = min(math.ceil(size / _MULTIPLE) * _MULTIPLE, most)
    return [Window(start, min(start + size, total), total) for start in range(0, total, size)]


@contextmanager
def inside(window: Window) -> Iterator[None]:
    """Make this the current window."""
    _thread.window = window
    try:
        yield
    finally:
        _thread.window = None


def current_window() -> Window | None:
    """Return the window that is being computed; None if all tokens are."""
    window: Window | None = getattr(_thread, "window", None)
    return window
