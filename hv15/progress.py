"""Progress on stderr: a bar on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from hv15.ranks import is_first_rank
from hv15.terminal_text import CleanStream, one_line

LOG_INTERVAL_S = 10.0


class Progress:
    """Counts `total` things and says how far it is, how fast, and when it will be done.

    with Progress(120, "encode", unit="clips") as progress:
        progress.advance(4, note="loss 0.12")
    """

    def __init__(self, total: int, label: str, *, unit: str = "", start: int = 0, stream: TextIO | None = None) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = self._start = start
        stream = stream or (sys.stderr if is_first_rank() else None)
        self._bar = stream is not None and stream.isatty()  # None: not the first rank, or closed before
        if self._bar and isinstance(stream, CleanStream):
            stream = stream.raw
        self._stream: TextIO | None = stream
        self._begun = self._shown = time.monotonic()
        self._note = ""

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Count `count` more; `note` is shown beside the figures."""
        self.done += count
        self._note = one_line(note) or self._note
        now = time.monotonic()
        if now - self._shown >= (0.1 if self._bar else LOG_INTERVAL_S) or self.done >= self.total:
            self._shown = now
            self._show()

    def _show(self) -> None:
        elapsed = time.monotonic() - self._begun
        rate = (self.done - self._start) / elapsed if elapsed > 0 else 0.0
        left = clock((self.total - self.done) / rate) if rate > 0 else "?"
        share = self.done / self.total if self.total else 1.0
        figures = f"{self.done}/{self.total} {self.unit}".rstrip()
        tail = f"{figures}  {speed(rate)}  {clock(elapsed)}, {left} left" + (f"  {self._note}" if self._note else "")
        if self._bar:
            width = 24
            bar = ("━" * round(share * width)).ljust(width, "·")
            self._write(f"\r\x1b[2K{self.label} {bar} {share:4.0%}  {tail}")
        else:
            self._write(f"{self.label} {share:4.0%}  {tail}\n")

    def _write(self, text: str) -> None:
        """Write text to the stream. If nobody reads it any more, show nothing from then on: the work must continue."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal or the reader is gone; ValueError: the stream is closed
            self._stream = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar and self.done > self._start:
            self._show()
            self._write("\n")


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 3:04:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def speed(per_second: float) -> str:
    """A rate as people read it: 3.2/s, or 4.1 s each when it is slow."""
    return f"{per_second:.1f}/s" if per_second >= 1 or per_second == 0 else f"{1 / per_second:.1f} s each"
