"""Curves with axes, zoom and pan: textual-plot with our colours, a log axis, and readable numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.reactive import reactive
from textual_hires_canvas import HiResMode
from textual_plot import PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter

from hv15.records.metrics import StepRecord
from tui.data.curves import ChartInfo, CurveSource, Series
from tui.themes import SERIES
from tui.units import duration, number

SPARSE_SIGNS = "◆◇●○"
"""Of the curves of a chart that do not have a point for each step."""
SIGN_TURNS = 3
"""How often each curve carries its sign before its end, where there are several."""


@dataclass(frozen=True)
class Curve:
    """One line to draw."""

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    """Which of the theme's colours for curves."""
    faint: bool = False
    """Whether it is drawn faintly: raw values behind smoothed ones."""
    mark: str = ""
    """A sign of one character on the curve, which distinguishes it from the others without colour."""


def curves_to_draw(info: ChartInfo, found: Sequence[Series]) -> list[Curve]:
    """Return the curves of a chart that have points.

    Args:
        found: one for each of the chart's curves, in their order.
    """
    curves, colour, signs = [], 0, iter(SPARSE_SIGNS * len(found))
    for source, series in zip(info.curves, found, strict=True):
        sign = _sign(source) or ("" if source.record is StepRecord else next(signs))
        curves.append(Curve(source.label, series.x, series.y * info.scale, colour, source.faint, sign))
        colour += not source.faint
    return [curve for curve in curves if len(curve.x)]


def sign_places(x: np.ndarray, number: int, of: int) -> list[int]:
    """The points of a curve that carry its sign: the last one, and some before it if there are other curves.

    Overlapping curves carry their signs at different places.
    """
    last = len(x) - 1
    if of < 2:
        return [last]
    shares = [(turn + (number + 1) / (of + 1)) / SIGN_TURNS for turn in range(SIGN_TURNS)]
    on_the_way = np.searchsorted(x, [x[0] + share * (x[-1] - x[0]) for share in shares])
    return sorted({*map(int, on_the_way), last})


def _sign(source: CurveSource) -> str:
    """The sign of one of the values of a field with several."""
    return str(source.bin + source.measure.first_bin)[-1] if source.how == "bin" else ""


class SparseFormatter(NumericAxisFormatter):
    """Never more ticks than there is room for."""

    def __init__(self, room: int) -> None:
        self.room = max(2, room)

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        return self.thin(super().get_ticks(min_, max_, min(max_ticks, self.room)))

    def thin(self, ticks: list[float]) -> list[float]:
        """Leave out every second tick until they fit."""
        while len(ticks) > self.room:
            ticks = ticks[::2]
        return ticks


class LogFormatter(SparseFormatter):
    """Labels for an axis on which 10^y is shown."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        if max_ - min_ < 1.0:
            return [math.log10(tick) for tick in super().get_ticks(10**min_, 10**max_, max_ticks) if tick > 0]
        return self.thin([float(power) for power in range(math.ceil(min_), math.floor(max_) + 1)])

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [number(10**tick) for tick in ticks]


class ValueFormatter(SparseFormatter):
    """Plain numbers, in few digits."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [number(float(f"{tick:.6g}")) for tick in ticks]


class StepFormatter(SparseFormatter):
    """Steps: 800, 12k, 1.5M."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [_short(tick) for tick in ticks]


class TimeFormatter(SparseFormatter):
    """Seconds of training as 1:20:00."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [duration(tick) for tick in ticks]


class Chart(PlotWidget, inherit_bindings=False):
    """A plot whose legend is in its border."""

    HELP = """Curves of the training. + and - zoom, the arrows move, r shows all again; with the mouse: wheel and drag.
    y changes between a linear and a logarithmic axis."""

    DEFAULT_CSS = """
    Chart {
        background: $background;
        & > .plot--axis { color: $border; }
        &:focus > .plot--axis { color: $border; }
        & > .plot--tick { color: $faint; text-style: none; }
        & > .plot--label { color: $faint; text-style: none; }
        Canvas { background: $background; color: $foreground; }
        #legend { display: none; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("plus,equals_sign", "zoom_x_in", "Zoom in", id="chart-in", show=False, tooltip="zoom in along x"),
        Binding("minus", "zoom_x_out", "Zoom out", id="chart-out", show=False, tooltip="zoom out along x"),
        Binding("ctrl+up", "zoom_y_in", "Zoom y in", id="chart-y-in", show=False, tooltip="zoom in along y"),
        Binding("ctrl+down", "zoom_y_out", "Zoom y out", id="chart-y-out", show=False, tooltip="zoom out along y"),
        Binding("left", "pan_left", "Left", id="chart-left", show=False, tooltip="move to the left"),
        Binding("right", "pan_right", "Right", id="chart-right", show=False, tooltip="move to the right"),
        Binding("up", "pan_up", "Up", id="chart-up", show=False, tooltip="move up"),
        Binding("down", "pan_down", "Down", id="chart-down", show=False, tooltip="move down"),
        Binding("r", "reset_scales", "Show all", id="chart-reset", show=False, tooltip="show all again"),
    ]

    margin_top = reactive(0)
    margin_bottom = reactive(1)
    margin_left = reactive(8)

    def __init__(self, title: str = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.curves: Sequence[Curve] = ()
        self.log_axis = False
        self.x_axis = "step"
        self.heading = title
        self.note = ""
        self.zoomed = False
        """Whether a person chose the visible part, which then stays."""

    @property
    def columns(self) -> int:
        """How many columns the curves have."""
        return max(20, self.content_size.width - self.margin_left - 2)

    @property
    def seen_x(self) -> tuple[float, float]:
        """The part of the x axis that is shown."""
        return self._x_min, self._x_max

    def _update_legend(self) -> None:
        """Leave out textual-plot's own legend."""

    def _position_legend(self) -> None:
        """Do nothing: a resize may ask for the legend before it exists."""

    def on_mount(self) -> None:
        self.border_title = Content(self.heading)
        self.watch(self.app, "theme", self._recolour, init=False)

    def _recolour(self) -> None:
        self.call_after_refresh(self.show, self.curves)

    def show(self, curves: Sequence[Curve], *, note: str = "") -> None:
        """Draw these curves from now on. They must have few points: thin them first."""
        self.curves, self.note = curves, note
        if not self.is_mounted:
            return
        self.clear()
        colours = self.app.theme_variables
        low, high = math.inf, -math.inf
        rows, columns = self.content_size.height // 3, self.columns // 10
        self.set_y_formatter(LogFormatter(rows) if self.log_axis else ValueFormatter(rows))
        self.set_x_formatter(TimeFormatter(columns) if self.x_axis == "time" else StepFormatter(columns))
        marked: list[tuple[Curve, str, np.ndarray, np.ndarray]] = []
        for curve in curves:
            x, y = self._seen(curve)
            if not len(x):
                continue
            low, high = min(low, float(y.min())), max(high, float(y.max()))
            name = "faint" if curve.faint else SERIES[curve.colour % len(SERIES)]
            self.plot(x, y, line_style=colours[name], hires_mode=HiResMode.BRAILLE)
            if curve.mark:
                marked.append((curve, colours[name], x, y))
        for turn, (curve, colour, x, y) in enumerate(marked):  # drawn over all lines
            places = sign_places(x, turn, len(marked))
            self.scatter(x[places], y[places], marker=curve.mark, marker_style=f"bold {colour}")
        if high >= low and not self.zoomed:
            margin = (high - low) * 0.03 or abs(high) * 0.1 or 1.0
            self.set_ylimits(low - margin, high + margin)
        self._label()

    def _pan(self, factor_x: float, factor_y: float) -> None:
        if self._has_room:
            super()._pan(factor_x, factor_y)

    def _zoom_with_mouse(self, event: MouseScrollDown | MouseScrollUp, factor: float) -> None:
        if self._has_room:
            super()._zoom_with_mouse(event, factor)

    @property
    def _has_room(self) -> bool:
        """Whether any part of the plot is visible: without a cell, pixels cannot be mapped to values."""
        return self._scale_rectangle.width > 0 and self._scale_rectangle.height > 0

    def on_plot_widget_scale_changed(self) -> None:
        self.zoomed = True

    def action_reset_scales(self) -> None:
        """Show all again."""
        self.set_xlimits(None, None)
        self.call_later(self._zoomed_out)

    def _zoomed_out(self) -> None:
        self.zoomed = False
        self.show(self.curves, note=self.note)
        self.post_message(self.ZoomedOut(self))

    @dataclass
    class ZoomedOut(Message):
        """All is shown again."""

        chart: Chart

    def _seen(self, curve: Curve) -> tuple[np.ndarray, np.ndarray]:
        x, y = np.asarray(curve.x, dtype=float), np.asarray(curve.y, dtype=float)
        kept = np.isfinite(x) & np.isfinite(y)
        if self.log_axis:
            kept &= y > 0
        x, y = x[kept], y[kept]
        return x, np.log10(y) if self.log_axis else y

    def _label(self) -> None:
        colours = [("$faint" if curve.faint else f"${SERIES[curve.colour % len(SERIES)]}") for curve in self.curves]
        names = [
            Content.assemble((curve.mark or "━", colour), f" {curve.label}" if curve.label else "")
            for curve, colour in zip(self.curves, colours, strict=True)
            if curve.mark or curve.label
        ]
        log = Content(" (log)") if self.log_axis else Content("")
        self.border_title = Content.assemble(Content(self.heading), log)
        note = [Content(self.note)] if self.note else []
        note = note if self.curves else [Content("nothing measured yet")]
        self.border_subtitle = Content("  ").join([*names, *note])


def _short(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"
