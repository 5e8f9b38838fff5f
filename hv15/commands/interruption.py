"""Ctrl-C while something is computed: the first one asks it to stop where nothing is lost, the second stops at once."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType


class Interruption:
    """Takes Ctrl-C while it is entered.

    with Interruption() as interruption:
        for step in steps:
            interruption.check()
    """

    def __init__(self) -> None:
        self._is_asked = False
        self.was_sudden = False
        """Whether it was not waited for a place where nothing is lost, so that a model may be half changed."""

    def check(self) -> None:
        """Stop if that was asked for.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self._is_asked:
            raise KeyboardInterrupt

    def _asked(self, _signal: int, _frame: FrameType | None) -> None:
        if self._is_asked:
            self.was_sudden = True
            raise KeyboardInterrupt
        self._is_asked = True
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def __enter__(self) -> Interruption:
        self._before = signal.signal(signal.SIGINT, self._asked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
