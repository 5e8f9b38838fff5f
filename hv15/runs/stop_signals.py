"""The signals that ask a Snakemake process to stop: noted, so that its run can record why it ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

import psutil

from hv15.runs.processes import send

Handler = Callable[[int, FrameType | None], object]


class StopSignals:
    """Notes SIGINT (Ctrl-C), SIGHUP (a closed terminal) and SIGTERM, and lets Snakemake act on them.

    Python's own reaction to SIGINT is to raise a KeyboardInterrupt, for which Snakemake starts nothing more, waits for
    its jobs and says how far it got. SIGHUP is handled in the same way, because it would end the process silently. It
    may reach this process alone, so it is passed on to the jobs.
    """

    def __init__(self) -> None:
        self.received = ""
        """The name of the first signal that asked to stop; "" if none did."""
        self._snakemakes_own: Handler | None = None

    def listen(self, *, even_if_ignored: bool) -> None:
        """Listen from now on.

        Args:
            even_if_ignored: whether SIGINT is handled even if it was ignored at the start, as it is for a process that
                a script starts with &.
        """
        with contextlib.suppress(ValueError):  # not the main thread
            if even_if_ignored or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._interrupt)
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
                signal.signal(signal.SIGHUP, self._hang_up)

    def notice_snakemakes_own(self) -> None:
        """Wrap Snakemake's own handler of SIGTERM once it is set; it finishes what runs and starts nothing more.

        This is asked for each record of the log, but Snakemake sets its handler only once.
        """
        if self._snakemakes_own is not None or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler) and handler != self._terminate:
            self._snakemakes_own = handler
            signal.signal(signal.SIGTERM, self._terminate)

    def _note(self, number: int) -> bool:
        """Note a signal; return whether it was the first."""
        first, self.received = not self.received, self.received or signal.Signals(number).name
        return first

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        raise KeyboardInterrupt

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._note(number):  # shell and kernel send it once each
            send(psutil.Process().children(recursive=True), signal.SIGHUP)
            raise KeyboardInterrupt

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        if self._snakemakes_own is not None:
            self._snakemakes_own(number, frame)
