"""The steps of a training as columns of numbers, one for each measured field of a step's record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hv15.records.json_values import JsonObject
from hv15.records.metrics import STEP_SECONDS, StepRecord, measures
from tui.data.columns import Column, Numbers, RunningMean
from tui.data.curves import Axis, CurveSource
from tui.data.json_numbers import lists, numbers

MEASURES = measures(StepRecord)


class StepColumns:
    """Grows by lines of steps, which come in ascending order."""

    def __init__(self, smoothing: float) -> None:
        self.step = Column(np.float64)
        self._epoch = Column()
        self._time = Column(np.float64)
        """Seconds of training."""
        self._plain = {name: Column() for name, measure in MEASURES.items() if not measure.bins}
        self._means = {name: RunningMean(smoothing) for name, measure in MEASURES.items() if measure.smoothed}
        self._binned = {
            name: [(Column(np.uint32), Column()) for _ in range(measure.bins)]
            for name, measure in MEASURES.items()
            if measure.bins
        }
        """For each bin, the rows that have a value, and the values."""

    def __len__(self) -> int:
        return len(self.step)

    @property
    def last_step(self) -> int:
        """The number of the last step; -1 when there is none."""
        return int(self.step.values[-1]) if len(self) else -1

    def extend(self, lines: Sequence[JsonObject]) -> None:
        """Add steps."""
        first = len(self)
        self.step.extend(numbers(lines, "step"))
        self._epoch.extend(numbers(lines, "epoch"))
        for name, column in self._plain.items():
            column.extend(numbers(lines, name))
        seconds = self._plain[STEP_SECONDS].values[first:].astype(np.float64)
        seconds = np.nan_to_num(seconds, posinf=0.0, neginf=0.0)
        begin = float(self._time.values[-1]) if first else 0.0
        self._time.extend(begin + np.cumsum(np.maximum(seconds, 0.0)))
        for name, columns in self._binned.items():
            values = lists(lines, name, len(columns))
            for place, (row, value) in enumerate(columns):
                found = np.flatnonzero(np.isfinite(values[:, place]))
                row.extend(found + first)
                value.extend(values[found, place])
        for name, mean in self._means.items():
            mean.follow(self._plain[name])

    def cut(self, rows: int) -> None:
        """Drop all after the first `rows` steps."""
        if rows >= len(self):
            return
        for column in (self.step, self._epoch, self._time, *self._plain.values()):
            column.cut(rows)
        for columns in self._binned.values():
            for row, value in columns:
                kept = int(np.searchsorted(row.values, rows))
                row.cut(kept)
                value.cut(kept)
        for name, mean in self._means.items():
            mean.restart()
            mean.follow(self._plain[name])

    def places(self, axis: Axis) -> Numbers:
        """The position of each step on an axis."""
        return {"step": self.step, "time": self._time, "epoch": self._epoch}[axis].values

    def points(self, source: CurveSource, axis: Axis) -> tuple[Numbers, Numbers]:
        """Return a curve of the steps; some values may be NaN."""
        places = self.places(axis)
        if source.how == "bin":
            row, value = self._binned[source.field][source.bin]
            return places[row.values], value.values
        if source.how == "smoothed":
            return places, self._means[source.field].means.values
        values = self._plain[source.field].values
        if source.how == "share":
            with np.errstate(divide="ignore", invalid="ignore"):
                return places, np.divide(values, self._plain[source.measure.share_of].values, dtype=np.float64)
        return places, values

    def last(self, source: CurveSource, count: int = 1) -> Numbers:
        """Return the finite ones among the last values of a curve that has a value for each step."""
        values = self.points(source, "step")[1][-count:]
        return values[np.isfinite(values)]
