"""The charts of a training, derived from the fields of its records (`hv15.records.metrics`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hv15.records.metrics import RECORDS, Measure, MetricsRecord, StepRecord, Unit, measures
from hv15.units import GIB

Axis = Literal["step", "time", "epoch"]
"""`time` is seconds of training: pauses and jumps of the clock do not count."""

UNIT_WORDS: dict[Unit, str] = {"": "", "s": ", seconds", "1/s": " a second", "B": ", GiB"}
UNIT_SCALES: dict[Unit, float] = {"": 1.0, "s": 1.0, "1/s": 1.0, "B": 1 / GIB}
"""Factors by which values are multiplied for display."""

SIGNS = "123456789abcdefghijklmnopqrstuvwxyz"


def sign_of(number: int) -> str:
    """The one character that stands for a training among those drawn over one another, the first being 0."""
    return SIGNS[number % len(SIGNS)]


@dataclass(frozen=True)
class CurveSource:
    """Where a curve comes from."""

    record: type[MetricsRecord]
    field: str
    measure: Measure
    how: Literal["value", "smoothed", "share", "bin"] = "value"
    bin: int = 0

    @property
    def label(self) -> str:
        """What distinguishes it from the others of its chart."""
        if self.how == "bin":
            return ""
        return "smoothed" if self.how == "smoothed" else self.measure.label

    @property
    def faint(self) -> bool:
        """Whether it is drawn behind its own running mean."""
        return self.how == "value" and self.measure.smoothed


@dataclass(frozen=True)
class ChartInfo:
    """One chart: the curves whose fields share a title."""

    name: str
    """The name of its first field."""
    title: str
    """With the unit."""
    scale: float
    log: bool
    """Whether a logarithmic axis makes sense."""
    curves: tuple[CurveSource, ...]

    @property
    def main(self) -> CurveSource:
        """The curve that represents a training among others: the smoothed one, else the one in the middle."""
        smoothed = (curve for curve in self.curves if curve.how == "smoothed")
        return next(smoothed, self.curves[len(self.curves) // 2])


def curves_of(record: type[MetricsRecord], field: str, measure: Measure) -> list[CurveSource]:
    """Return what is drawn of a measured field."""
    if measure.bins:
        return [CurveSource(record, field, measure, "bin", number) for number in range(measure.bins)]
    if measure.share_of:
        return [CurveSource(record, field, measure, "share")]
    found = [CurveSource(record, field, measure)]
    return [*found, CurveSource(record, field, measure, "smoothed")] if measure.smoothed else found


def charts_of(records: Iterable[type[MetricsRecord]]) -> tuple[ChartInfo, ...]:
    """Return the charts of some kinds of records, in the order of their fields."""
    groups: dict[str, list[CurveSource]] = {}
    for record in records:
        for field, measure in measures(record).items():
            groups.setdefault(measure.title, []).extend(curves_of(record, field, measure))
    return tuple(_chart(title, curves) for title, curves in groups.items())


def _chart(title: str, curves: list[CurveSource]) -> ChartInfo:
    first = curves[0]
    unit: Unit = "" if first.how == "share" else first.measure.unit
    return ChartInfo(first.field, title + UNIT_WORDS[unit], UNIT_SCALES[unit], first.measure.log, tuple(curves))


CHARTS = charts_of([StepRecord, *(kind for kind in RECORDS.values() if kind is not StepRecord)])
LOSS = next(chart for chart in CHARTS if chart.name == "loss")


@dataclass(frozen=True)
class Series:
    """A curve, thinned; x ascends, y is finite."""

    label: str
    """Of its training."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    points: int
    """Before thinning."""
