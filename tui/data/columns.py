"""Columns of numbers that grow at their end, and their thinning to what a chart can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float32 | np.float64 | np.uint32]


class Column:
    """Numbers in one array; views of it keep their values when more are added."""

    def __init__(self, dtype: type[np.float32] | type[np.float64] | type[np.uint32] = np.float32) -> None:
        self._data: Numbers = np.empty(256, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> Numbers:
        return self._data[: self._count]

    def extend(self, values: Sequence[float] | Numbers | NDArray[np.int64]) -> None:
        count = self._count + len(values)
        if count > len(self._data):
            grown = np.empty(max(count, len(self._data) * 3 // 2), self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown
        with np.errstate(over="ignore", invalid="ignore"):  # a number too large for float32 is infinite
            self._data[self._count : count] = np.asarray(values, np.float64)
        self._count = count

    def cut(self, count: int) -> None:
        """Drop all after the first `count`. Views from before keep their numbers."""
        if count < self._count:
            self._data = self._data[:count].copy() if count else np.empty(256, self._data.dtype)
            self._count = count


class RunningMean:
    """The running mean of a column, whose start is not pulled towards zero, as the training shows it."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        """Between 0 (the values themselves) and 1: how much of the mean before each value keeps."""
        self.means = Column()
        self._sum = self._weight = 0.0

    def follow(self, column: Column) -> None:
        """Add the means of the column's new values; NaN is skipped."""
        keep, total, weight = self._keep, self._sum, self._weight
        means = []
        for value in column.values[len(self.means) :].tolist():
            if math.isfinite(value):
                total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
            means.append(total / weight if weight else math.nan)
        self.means.extend(means)
        self._sum, self._weight = total, weight

    def restart(self) -> None:
        """Start over, because the column was cut."""
        self.means.cut(0)
        self._sum = self._weight = 0.0


def thin(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """Keep the lowest and the highest point of each of `columns` equal parts of the x axis, so that no peak is lost.

    Args:
        x: ascending.
        y: finite.
    """
    if len(x) <= 2 * columns or columns < 1:
        return x, y
    edges = np.linspace(x[0], x[-1], columns + 1)[1:-1]
    starts = np.unique(np.concatenate([[0], np.searchsorted(x, edges)]))
    kept: list[int] = []
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        if start < end:
            part = y[start:end]
            kept += sorted({int(start + part.argmin()), int(start + part.argmax())})
    return x[kept], y[kept]
