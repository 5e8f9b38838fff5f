"""What a training says while it runs: a bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 10.0
SMOOTHING = 0.95


class TrainingProgress:
    """Shows step, smoothed loss, learning rate, speed and time left on stderr."""

    def __init__(self, total_steps: int, done: int = 0, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.total, self.first = total_steps, done
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self._loss = self._weight = 0.0
        self._start = time.monotonic()
        self._shown = float("-inf")
        self._bar: Progress | None = None

    def __enter__(self) -> TrainingProgress:
        if self.stream.isatty() and not self.quiet:
            self._bar = _bar(self.stream)
            self._task = self._bar.add_task("train", total=self.total, completed=self.first, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, *, epoch: float, loss: float, lr: float) -> None:
        """Show a finished step."""
        if self.quiet:
            return
        # a running mean whose start is not pulled towards zero
        self._loss = SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        now = time.monotonic()
        per_step = (now - self._start) / (step - self.first)
        left = timedelta(seconds=round(per_step * (self.total - step)))
        text = (
            f"epoch {epoch:.2f}  loss {self._loss / self._weight:.4f}  lr {lr:.2e}  {per_step:.2f} s/step  {left} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        elif now - self._shown >= LINE_EVERY_S or step == self.total:
            self._shown = now
            print(f"step {step}/{self.total}  {text}", file=self.stream, flush=True)


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(24),
        TextColumn("{task.fields[text]}"),
        console=Console(file=stream),
    )
