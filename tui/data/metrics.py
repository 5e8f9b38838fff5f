"""The curves of a training: metrics.jsonl is read from where the last read ended, and kept as columns of numbers."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from hv15.records.fields import NewerVersion
from hv15.records.json_values import Json, JsonObject, RecordError
from hv15.records.metrics import (
    SMOOTHING,
    STEP_SECONDS,
    EndRecord,
    PreviewRecord,
    StartRecord,
    StepRecord,
    ValidationRecord,
    WarningRecord,
    measures,
    read_metrics,
)
from hv15.runs.followed_file import FollowedLines
from hv15.runs.metrics import STALL_STEPS
from tui.data.columns import Numbers, thin
from tui.data.curves import CHARTS, LOSS, Axis, CurveSource, Series
from tui.data.json_numbers import number
from tui.data.step_columns import StepColumns

STALL_S = 120.0
"""A training counts as stalled when it has been silent for this many seconds and the time of `STALL_STEPS` steps."""
RECENT = 50
"""How many of the last steps give the median time of a step."""
OTHER_CURVES = [curve for chart in CHARTS for curve in chart.curves if curve.record is not StepRecord]
STEP_TIME = CurveSource(StepRecord, STEP_SECONDS, measures(StepRecord)[STEP_SECONDS])
SKIPPED = CurveSource(StepRecord, "skipped_steps", measures(StepRecord)["skipped_steps"])
ToldRecord: TypeAlias = ValidationRecord | PreviewRecord | WarningRecord
"""The records that are kept as they are."""
_DAMAGED = (ValueError, RecursionError)


@dataclass(frozen=True)
class TrainingStatus:
    """How far a training is."""

    step: int
    total: int
    """0 when it is not known."""
    step_s: float | None
    """Median over the last steps."""
    eta_s: float | None
    silent_s: float | None
    """Seconds since the file was last seen to grow."""
    stalled: bool
    loss: float | None
    """Of the last step; None if it was not a number."""
    loss_smooth: float | None
    skipped: int = 0
    """Steps that changed nothing, because their loss or gradient was not a finite number."""
    former: bool = False
    """Whether these are the last numbers of an earlier run, because the live run has none yet."""


@dataclass
class _Chunk:
    """What was known at an offset of the file."""

    offset: int
    rows: int
    others: int
    """Values of records that are not steps."""
    starts: int
    told: int


class MetricsReader:
    """One metrics.jsonl. `series` and `status` may be asked from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        label: str = "",
        smoothing: float = SMOOTHING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.label = path, label
        self._file = FollowedLines(path)
        self._monotonic = monotonic
        self._grown: float | None = None
        self._lock = threading.RLock()
        self._smoothing = smoothing
        self._forget()

    def _forget(self) -> None:
        self._steps = StepColumns(self._smoothing)
        self._others: list[tuple[CurveSource, int, float]] = []
        """Values of records that are not steps, by curve and step."""
        self._starts: list[StartRecord | EndRecord] = []
        """The records that tell the length of the training, of which the last counts."""
        self._told: list[ToldRecord] = []
        self._chunks: list[_Chunk] = []
        self.bad_lines = 0
        """How many lines are not records."""
        self._trouble = ""

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        return len(self._steps)

    @property
    def error(self) -> str:
        """Why the file cannot be read, or a part of it; "" when all is well."""
        return self._file.error or self._trouble

    @property
    def complete(self) -> bool:
        return self._file.complete

    @property
    def share(self) -> float:
        """How much of the file was read, 0 to 1."""
        return self._file.share

    def refresh(self, budget_s: float = 0.25) -> bool:
        """Read what is new, for about `budget_s` seconds at most; return whether anything changed."""
        deadline = time.perf_counter() + budget_s
        with self._lock:
            changed = not self._file.check()
            if changed:
                self._cut(self._file.offset)
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
        """Drop what came after an offset."""
        kept = [chunk for chunk in self._chunks if chunk.offset <= offset]
        if not kept:
            self._forget()
            return
        self._chunks, last = kept, kept[-1]
        self._steps.cut(last.rows)
        del self._others[last.others :], self._starts[last.starts :], self._told[last.told :]

    def _take(self, lines: Sequence[bytes]) -> None:
        steps: list[JsonObject] = []
        last: float = self._steps.last_step
        for line in lines:
            try:
                content: Json = json.loads(line)
            except _DAMAGED:
                self.bad_lines += bool(line.strip())
                continue
            kind = content.get("kind") if isinstance(content, dict) else None
            if not isinstance(content, dict) or not isinstance(kind, str):
                self.bad_lines += 1
            elif kind != StepRecord.kind:
                self._take_other(content)
            elif self._trouble:  # nobody guesses what a later version means
                continue
            elif not 0 <= (step := number(content.get("step"))) < 2**53:
                self.bad_lines += 1
            else:
                if step <= last:  # a resumed training repeats this step
                    self._steps.extend(steps)
                    steps = []
                    self._steps.cut(int(np.searchsorted(self._steps.step.values, step)))
                last = int(step)
                steps.append(content)
        if steps:
            self._steps.extend(steps)
        sizes = (self.rows, len(self._others), len(self._starts), len(self._told))
        self._chunks.append(_Chunk(self._file.offset, *sizes))
        if len(self._chunks) > 8192:
            self._chunks = self._chunks[:-2048:2] + self._chunks[-2048:]

    def _take_other(self, content: JsonObject) -> None:
        """Take a line that is not a step."""
        try:
            record = read_metrics(content)
        except NewerVersion as error:
            self._trouble = f"{self.path.name} {error}"
            return
        except RecordError:
            self.bad_lines += 1
            return
        if isinstance(record, StartRecord | EndRecord):
            self._starts.append(record)
        if isinstance(record, StartRecord):
            self._trouble = ""
        if isinstance(record, ToldRecord) and not self._trouble:
            self._told.append(record)
        for curve in OTHER_CURVES:
            if type(record) is curve.record and not self._trouble:
                self._others.append((curve, record.step, number_of(getattr(record, curve.field), curve)))

    # -- showing ----------------------------------------------------------------------------------------------------

    def series(
        self,
        curve: CurveSource,
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
            x, y = self._steps.points(curve, axis) if curve.record is StepRecord else self._sparse(curve, axis)
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
        return Series(self.label, np.array(x, np.float64), np.array(y, np.float64), points)

    def _sparse(self, curve: CurveSource, axis: Axis) -> tuple[Numbers, Numbers]:
        """A curve of records that are not steps; where a resumed training wrote one again, the last counts."""
        values = {step: value for each, step, value in self._others if each == curve}
        steps = np.array(sorted(values), np.float64)
        found = np.array([values[step] for step in sorted(values)], np.float64)
        if axis == "step" or not self.rows:
            return steps, found
        return np.interp(steps, self._steps.step.values, self._steps.places(axis)), found

    def told(self) -> list[ToldRecord]:
        """Return what the training has told beside its steps, each once: a resumed training may tell it again."""
        with self._lock:
            return list({_subject(record): record for record in self._told}.values())

    def status(self) -> TrainingStatus:
        """Return how far the training is."""
        with self._lock:
            start = self._starts[-1] if self._starts else None
            step = max(self._steps.last_step, start.step if start else 0, 0)
            recent = self._steps.last(STEP_TIME, RECENT)
            skipped = self._steps.last(SKIPPED)
            loss, smooth = self._steps.last(LOSS.curves[0]), self._steps.last(LOSS.main)
        recent = recent[recent >= 0]
        step_s = float(np.median(recent)) if len(recent) else None
        total = start.total_steps if start else 0
        silent = None if self._grown is None else max(0.0, self._monotonic() - self._grown)
        return TrainingStatus(
            step=step,
            total=total,
            step_s=step_s,
            eta_s=step_s * (total - step) if step_s is not None and total >= step else None,
            silent_s=silent,
            stalled=silent is not None and 0 < step < total and silent > max(STALL_S, STALL_STEPS * (step_s or 0.0)),
            loss=float(loss[0]) if len(loss) else None,
            loss_smooth=float(smooth[0]) if len(smooth) else None,
            skipped=int(skipped[0]) if len(skipped) else 0,
        )


def _subject(record: ToldRecord) -> tuple[object, ...]:
    """What two records have in common of which the second replaces the first."""
    told = {WarningRecord: "message", PreviewRecord: "name"}.get(type(record), "kind")
    return type(record), record.step, getattr(record, told)


def number_of(value: object, curve: CurveSource) -> float:
    """The number of a curve in a field's value; NaN if it has none."""
    if curve.how == "bin":
        value = value[curve.bin] if isinstance(value, tuple) and curve.bin < len(value) else None
    return float(value) if isinstance(value, int | float) else math.nan
