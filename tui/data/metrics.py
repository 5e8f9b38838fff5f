"""The curves of a training: metrics.jsonl read on from where the last look ended, kept as columns of numbers."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hv15.runs.metrics import kept_files, training_files
from hv15.runs.record import RunFolder
from tui.data.columns import Column, thin
from tui.data.curves import BINS, PLAIN, SERIES, Axis, Mark, Progress, Series, SeriesInfo
from tui.data.growing_file import GrowingFile
from tui.data.json_numbers import bins, known, number, numbers

__all__ = [
    "SERIES",
    "Axis",
    "Mark",
    "MetricsReader",
    "Progress",
    "Series",
    "SeriesInfo",
    "metrics_files",
    "run_metrics",
]

MARKS = 20_000
STALL_S = 120.0
STALL_STEPS = 20
"""A training is called stalled when it was silent for so many seconds and so many steps' time."""


class MetricsReader:
    """One metrics.jsonl. `series` and `progress` may be asked from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        label: str = "",
        smoothing: float = 0.95,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.label = path, label
        self.last: dict[str, Any] | None = None
        """The line of the last step."""
        self.bad_lines = 0
        self._file = GrowingFile(path)
        self._monotonic = monotonic
        self._grown: float | None = None
        self._lock = threading.RLock()
        self._smoothing = smoothing
        self._chunks: list[tuple[int, int]] = []  # (offset, rows) at the end of each chunk
        self._forget()

    def _forget(self) -> None:
        self._step = Column(np.float64)
        self._epoch = Column()
        self._time = Column(np.float64)
        self._columns = {name: Column() for name in PLAIN}
        self._smooth = Column()
        self._bins = [(Column(np.uint32), Column()) for _ in range(BINS)]
        self._validation = (Column(np.float64), Column())
        self._marks: list[Mark] = []
        self._running = (0.0, 0.0)  # of the smoothed loss: weighted sum, weight
        self.last, self.bad_lines = None, 0

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        return len(self._step)

    @property
    def error(self) -> str:
        return self._file.error

    @property
    def complete(self) -> bool:
        return self._file.complete

    @property
    def share(self) -> float:
        """How much of the file was read, 0 to 1."""
        return min(1.0, self._file.offset / self._file.size) if self._file.size else 1.0

    def refresh(self, budget_s: float = 0.25) -> bool:
        """Read what is new, for at most `budget_s` seconds or so; tell whether anything changed."""
        deadline = time.perf_counter() + budget_s
        before = self._file.offset
        with self._lock:
            kept = self._file.still_valid()
            if kept < before:
                self._cut(kept)
        changed = kept < before
        while lines := self._file.read_lines():
            with self._lock:
                self._take(lines)
            changed = True
            if time.perf_counter() > deadline:
                break
        if changed:
            self._grown = self._monotonic()
        return changed

    def _cut(self, offset: int) -> None:
        """Forget what stood behind an offset."""
        self._chunks = [chunk for chunk in self._chunks if chunk[0] <= offset]
        if offset == 0:
            self._forget()
            return
        self._cut_rows(next((rows for end, rows in reversed(self._chunks) if end <= offset), 0))
        self._marks = [mark for mark in self._marks if mark.offset <= offset]
        self._rebuild_validation()

    def _cut_rows(self, rows: int) -> None:
        if rows >= self.rows:
            return
        for column in (self._step, self._epoch, self._time, self._smooth, *self._columns.values()):
            column.cut(rows)
        for index, value in self._bins:
            kept = int(np.searchsorted(index.values, rows))
            index.cut(kept)
            value.cut(kept)
        self._running = (0.0, 0.0)
        self._continue_smoothing()
        self.last = self._row(rows - 1) if rows else None

    def _row(self, row: int) -> dict[str, Any]:
        values = {name: float(column.values[row]) for name, column in self._columns.items()}
        return {"step": int(self._step.values[row]), "epoch": float(self._epoch.values[row]), **values}

    def _take(self, lines: Sequence[bytes]) -> None:
        steps: list[dict[str, Any]] = []
        offset = self._file.offset
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                self.bad_lines += bool(line.strip())
                continue
            kind = record.get("kind") if isinstance(record, dict) else None
            if not isinstance(kind, str):
                self.bad_lines += 1
            elif kind != "step":
                self._add_mark(kind, record, offset)
            elif not 0 <= number(record.get("step")) < 2**53:
                self.bad_lines += 1
            else:
                if record["step"] <= (steps[-1]["step"] if steps else self._last_step()):
                    self._add(steps)
                    steps = []
                    self._cut_rows(int(np.searchsorted(self._step.values, record["step"])))
                steps.append(record)
        self._add(steps)
        self._chunks.append((offset, self.rows))
        if len(self._chunks) > 8192:
            self._chunks = self._chunks[:-2048:2] + self._chunks[-2048:]

    def _last_step(self) -> float:
        return float(self._step.values[-1]) if self.rows else -1.0

    def _add(self, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        first = self.rows
        self._step.extend([record["step"] for record in records])
        self._epoch.extend(numbers(records, "epoch"))
        for name, column in self._columns.items():
            column.extend(numbers(records, name))
        seconds = np.nan_to_num(self._columns["step_s"].values[first:].astype(np.float64), posinf=0.0, neginf=0.0)
        begin = float(self._time.values[-1]) if first else 0.0
        self._time.extend(begin + np.cumsum(np.maximum(seconds, 0.0)))
        by_sigma = bins(records)
        for place, (index, value) in enumerate(self._bins):
            found = np.flatnonzero(np.isfinite(by_sigma[:, place]))
            index.extend(found + first)
            value.extend(by_sigma[found, place])
        self._continue_smoothing()
        self.last = records[-1]

    def _continue_smoothing(self) -> None:
        """A running mean whose start is not pulled towards zero, as the training shows it. NaN is passed over."""
        done = len(self._smooth)
        keep, (total, weight) = self._smoothing, self._running
        if weight == 0.0 and done:
            self._smooth.cut(0)
            done = 0
        smooth = []
        for loss in self._columns["loss"].values[done:].tolist():
            if math.isfinite(loss):
                total, weight = keep * total + (1 - keep) * loss, keep * weight + (1 - keep)
            smooth.append(total / weight if weight else math.nan)
        self._smooth.extend(smooth)
        self._running = (total, weight)

    def _add_mark(self, kind: str, record: dict[str, Any], offset: int) -> None:
        step = number(record.get("step"))
        when = number(record.get("time"))
        mark = Mark(kind, int(step) if math.isfinite(step) else 0, when if math.isfinite(when) else 0.0, record, offset)
        if len(self._marks) < MARKS:
            self._marks.append(mark)
        if kind == "validation":
            self._add_validation(mark)

    def _add_validation(self, mark: Mark) -> None:
        loss = number(mark.fields.get("loss", mark.fields.get("validation_loss")))
        steps, losses = self._validation
        if not math.isfinite(loss):
            return
        if len(steps) and mark.step <= steps.values[-1]:
            kept = int(np.searchsorted(steps.values, mark.step))
            steps.cut(kept)
            losses.cut(kept)
        steps.extend([mark.step])
        losses.extend([loss])

    def _rebuild_validation(self) -> None:
        self._validation = (Column(np.float64), Column())
        for mark in self._marks:
            if mark.kind == "validation":
                self._add_validation(mark)

    # -- showing ----------------------------------------------------------------------------------------------------

    @property
    def smoothing(self) -> float:
        """Between 0 (the loss itself) and 1: how much of the mean each step keeps."""
        return self._smoothing

    @smoothing.setter
    def smoothing(self, value: float) -> None:
        with self._lock:
            self._smoothing = min(max(value, 0.0), 0.9999)
            self._running = (0.0, 0.0)
            self._smooth.cut(0)
            self._continue_smoothing()

    def series(
        self,
        name: str,
        *,
        axis: Axis = "step",
        columns: int | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Series:
        """Return a curve.

        Args:
            columns: how many columns a chart has; of each, the lowest and the highest point are kept.
            start: of the x axis that is shown; `end` likewise.
        """
        with self._lock:
            x, y = self._points(name, axis)
        good = np.isfinite(y) & np.isfinite(x)
        if not good.all():
            x, y = x[good], y[good]
        if len(x) and (start is not None or end is not None):
            low = 0 if start is None else max(0, int(np.searchsorted(x, start)) - 1)
            high = len(x) if end is None else int(np.searchsorted(x, end, side="right")) + 1
            x, y = x[low:high], y[low:high]
        points = len(x)
        if columns:
            x, y = thin(x, y, columns)
        return Series(name, self.label, np.array(x, np.float64), np.array(y, np.float64), points)

    def _points(self, name: str, axis: Axis) -> tuple[NDArray[Any], NDArray[Any]]:
        places = {"step": self._step, "time": self._time, "epoch": self._epoch}[axis].values
        if name == "validation_loss":
            steps, losses = self._validation
            x = (
                steps.values
                if axis == "step"
                else np.interp(steps.values, self._step.values, places)
                if self.rows
                else steps.values
            )
            return x, losses.values
        if name.startswith("sigma_"):
            index, value = self._bins[int(name.removeprefix("sigma_"))]
            return places[index.values], value.values
        if name == "loss_smooth":
            return places, self._smooth.values
        if name == "data_wait_share":
            seconds = self._columns["step_s"].values
            with np.errstate(divide="ignore", invalid="ignore"):
                return places, self._columns["data_wait_s"].values / seconds
        return places, self._columns[name].values

    def at_step(self, step: float) -> dict[str, float | None]:
        """Return the values of the step nearest to one, by name; {} when there is none."""
        with self._lock:
            if not self.rows:
                return {}
            row = min(int(np.searchsorted(self._step.values, step)), self.rows - 1)
            if row and abs(self._step.values[row - 1] - step) < abs(self._step.values[row] - step):
                row -= 1
            values = {
                **self._row(row),
                "loss_smooth": float(self._smooth.values[row]),
                "time": float(self._time.values[row]),
            }
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def marks(self, *kinds: str) -> tuple[Mark, ...]:
        """Return the lines of some kinds (all without any), oldest first."""
        with self._lock:
            return tuple(mark for mark in self._marks if not kinds or mark.kind in kinds)

    def progress(self) -> Progress:
        """Return how far the training is."""
        with self._lock:
            start = next((mark for mark in reversed(self._marks) if mark.kind == "run"), None)
            total = number(start.fields.get("total_steps")) if start else math.nan
            recent = self._columns["step_s"].values[-50:]
            step = max(int(self._last_step()), start.step if start else 0)
            epoch = float(self._epoch.values[-1]) if self.rows else 0.0
            smooth = float(self._smooth.values[-1]) if self.rows else math.nan
            last = self.last or {}
        recent = recent[np.isfinite(recent) & (recent >= 0)]
        step_s = float(np.median(recent)) if len(recent) else None
        total = int(total) if math.isfinite(total) else 0
        silent = None if self._grown is None else max(0.0, self._monotonic() - self._grown)
        return Progress(
            step=step,
            total=total,
            epoch=epoch if math.isfinite(epoch) else 0.0,
            step_s=step_s,
            eta_s=step_s * (total - step) if step_s is not None and total >= step else None,
            silent_s=silent,
            stalled=silent is not None and 0 < step < total and silent > max(STALL_S, STALL_STEPS * (step_s or 0.0)),
            loss=known(last.get("loss")),
            loss_smooth=known(smooth),
            lr=known(last.get("lr")),
        )


def metrics_files(root: Path) -> list[tuple[str, Path]]:
    """Return (label, metrics file) of the project's training and of its experiments; that of the base is "train"."""
    return training_files(root)


def run_metrics(run: RunFolder) -> list[tuple[str, Path]]:
    """Return (label, metrics file) of the trainings that an earlier run has kept."""
    return kept_files(run)
