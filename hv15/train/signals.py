"""Requests: save and stop (SIGTERM, Ctrl-C, a closed terminal), save now (SIGUSR1), sample now (a file)."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeAlias

from hv15.ranks import is_rank

log = logging.getLogger(__name__)

EXIT_RESUMABLE = 3
"""Exit code of a training that was asked to stop and has saved its state."""


class Stopped(SystemExit):
    """A training was asked to stop, and has saved its state."""

    def __init__(self, step: int) -> None:
        super().__init__(EXIT_RESUMABLE)
        self.step = step
        """Number of finished and saved steps."""


_Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"
"""The handler of a signal, as `signal.signal` takes and returns it."""


class Requests:
    """Context manager that turns requests into flags, which the loop reads once in each step.

    A second SIGTERM or Ctrl-C has its default effect immediately. Under `nohup` a closed terminal is not a request,
    except to a rank, because hv15.ranks forwards every request as one. Outside the main thread no handler is installed.

    Args:
        sample_now: the file that asks for samples; it is removed when it is seen. One that was there before, or that
            comes too late, is removed unseen: it was meant for another training. None: nobody can ask for them.
    """

    def __init__(self, sample_now: Path | None = None) -> None:
        self._sample_now = sample_now
        self.stop = False
        self._save = False
        self._asked = False
        self._previous: dict[int, _Handler] = {}

    def __enter__(self) -> Requests:
        self._asks_for_samples()
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGTERM, self._on_stop),
                (signal.SIGHUP, self._on_hang_up),
                (signal.SIGINT, self._on_stop),
                (signal.SIGUSR1, self._on_save),
            ):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN and not is_rank():
                    continue
                self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._asks_for_samples():
            log.warning("samples were asked for when no step was left to do: none are made for that request")

    def take(self) -> tuple[bool, bool, bool]:
        """Return whether this process was asked to stop, and since the last call to save, and to sample."""
        asked, self._save = self._save, False
        return self.stop, asked, self._asks_for_samples()

    def _asks_for_samples(self) -> bool:
        if self._sample_now is None or not os.path.lexists(self._sample_now):
            return False
        try:
            self._sample_now.unlink()
        except OSError:  # else it would sample after each step
            return False
        return True

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.stop = self._asked = True

    def _on_hang_up(self, number: int, frame: FrameType | None) -> None:
        # The shell and the kernel each send one, and hv15.ranks forwards a request that may have come here as well.
        self.stop = True

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self._save = True
