"""Windows of tokens: work that treats every token alike is done for some tokens at a time, so that its middle results
(an MLP's are four times as wide as the tokens) stay small however long the video is.

Whoever draws or looks up something by a token's place asks `current_window`: it sees the place in the whole sequence.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

MOST_TOKENS = 8192
"""Tokens that one window holds at most: more would not make a GPU's matrix products faster."""
_MULTIPLE = 64  # of tokens, so that a window's matrix products fill the tiles of a GPU

_here = threading.local()


class Window(NamedTuple):
    """Tokens `start` to `stop` of `total`."""

    start: int
    stop: int
    total: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def windows(total: int, most: int = MOST_TOKENS) -> list[Window]:
    """Divide tokens into as few windows as have at most `most` tokens, all but the last of one size."""
    if total <= most:
        return [Window(0, total, total)]
    size = math.ceil(total / math.ceil(total / most))
    size = min(math.ceil(size / _MULTIPLE) * _MULTIPLE, most)
    return [Window(start, min(start + size, total), total) for start in range(0, total, size)]


@contextmanager
def inside(window: Window) -> Iterator[None]:
    """Say that what is computed now are the tokens of this window."""
    _here.window = window
    try:
        yield
    finally:
        _here.window = None


def current_window() -> Window | None:
    """The window that is computed now; None if it is all tokens."""
    window: Window | None = getattr(_here, "window", None)
    return window
