"""Charts: what the training measures, one curve over another, of one run or of several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual_plot import PlotWidget

from tui.data.metrics import Axis, Series
from tui.dialogs.choose import ChooseDialog
from tui.messages import MetricsSeen
from tui.screens.base import DashboardScreen
from tui.units import duration, number, percent
from tui.widgets.chart import Chart, Curve

GIB = 2**30
BETWEEN_S = 0.02
"""Between two charts, so that each is mounted and drawn by itself."""
SIGMAS = tuple(f"sigma_{number}" for number in range(10))


@dataclass(frozen=True)
class Panel:
    """One chart: its curves by name, the first of which stands for a run when several are overlaid."""

    name: str
    title: str
    curves: tuple[tuple[str, str], ...]
    """(series, label)"""
    main: str
    scale: float = 1.0
    faint: frozenset[str] = frozenset()


PANELS = (
    Panel(
        "loss",
        "Loss",
        (("loss", "raw"), ("loss_smooth", "smoothed"), ("validation_loss", "validation")),
        "loss_smooth",
        faint=frozenset({"loss"}),
    ),
    Panel("sigma", "Loss by noise level (tenths of sigma)", tuple((name, "") for name in SIGMAS), "sigma_5"),
    Panel("lr", "Learning rate", (("lr", ""),), "lr"),
    Panel("grad", "Gradient norm", (("grad_norm", ""),), "grad_norm"),
    Panel("rate", "Samples a second", (("samples_per_s", ""),), "samples_per_s"),
    Panel("wait", "Waiting for data, share of a step", (("data_wait_share", ""),), "data_wait_share"),
    Panel("step", "Seconds a step", (("step_s", ""),), "step_s"),
    Panel("tokens", "Tokens a second", (("tokens_per_s", ""),), "tokens_per_s"),
    Panel("memory", "Memory, GiB", (("memory", "now"), ("memory_peak", "peak")), "memory_peak", 1 / GIB),
)
NEXT_AXIS: dict[Axis, Axis] = {"step": "time", "time": "epoch", "epoch": "step"}


class ChartsScreen(DashboardScreen):
    """As many charts as there is room for; [ and ] go through the others."""

    NAME: ClassVar[str] = "charts"
    FIRST: ClassVar[str] = "#chart-loss"
    CSS_PATH = "charts.tcss"
    HELP = """What the training measures. y: logarithmic axis, a: steps, time or epochs, o: several trainings over one
    another, [ and ]: the other charts, m: one chart alone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "log_axis", "Log", id="charts-log", tooltip="linear or logarithmic, of the chart with the focus"),
        Binding("a", "axis", "Axis", id="charts-axis", tooltip="along steps, time of training, or epochs"),
        Binding("o", "overlay", "Overlay", id="charts-overlay", tooltip="choose trainings to draw over one another"),
        Binding(
            "left_square_bracket",
            "page(-1)",
            "Before",
            id="charts-before",
            key_display="[",
            tooltip="the charts before",
        ),
        Binding(
            "right_square_bracket", "page(1)", "More", id="charts-more", key_display="]", tooltip="the charts after"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.x_axis: Axis = "step"
        self.first = 0
        self.charts = {panel.name: Chart(panel.title, id=f"chart-{panel.name}", classes="pane") for panel in PANELS}
        """All of them; mounted are those that were shown."""

    def body(self) -> Iterable[Widget]:
        yield Container(self.charts[PANELS[0].name], id="charts")
        yield Static(id="charts-note")

    def on_mount(self) -> None:
        self.call_after_refresh(self._arrange)

    def on_resize(self) -> None:
        self.call_after_refresh(self._arrange)

    @property
    def room(self) -> int:
        """How many charts are shown at a time."""
        wide, narrow = self.app.size.width >= 160, self.app.size.width < 100
        short = self.app.size.height < 32
        columns = 3 if wide else 1 if narrow else 2
        rows = 1 if short else 2 if narrow else 3
        return columns * rows

    def _arrange(self) -> None:
        """Show the charts of this page, and load them."""
        self.run_worker(self._show_page, group="charts-page", exclusive=True)  # type: ignore[arg-type]

    async def _show_page(self) -> None:
        self.first = max(0, min(self.first, len(PANELS) - 1)) // self.room * self.room
        shown = PANELS[self.first : self.first + self.room]
        for place, panel in enumerate(PANELS):
            chart = self.charts[panel.name]
            chart.display = panel in shown
            if chart.display and chart.parent is None:
                mounted = [after for each in PANELS[place:] if (after := self.charts[each.name]).parent is not None]
                await asyncio.sleep(BETWEEN_S)
                await self.query_one("#charts", Container).mount(chart, before=mounted[0] if mounted else None)
        if self.focused is None or not self.focused.display:
            self.charts[shown[0].name].focus()
        self._note()
        self.call_after_refresh(self._load)

    def action_page(self, pages: int) -> None:
        count = -(-len(PANELS) // self.room)
        self.first = (self.first // self.room + pages) % count * self.room
        self._arrange()

    # Curves

    def on_metrics_seen(self, message: MetricsSeen) -> None:
        self._load()
        self._note(message)

    def _load(self) -> None:
        """Cut the curves of the charts that are shown to what can be drawn, in a thread."""
        if not self.is_current:
            return
        files, axis, overlaid = self.dashboard.files, self.x_axis, self.dashboard.files.overlaid
        wanted = [
            (panel, chart.columns, *((chart.seen_x) if chart.zoomed else (None, None)))
            for panel in PANELS
            if (chart := self.charts[panel.name]).is_mounted and chart.display
        ]

        def load() -> dict[str, list[Curve]]:
            found: dict[str, list[Curve]] = {}
            for panel, columns, start, end in wanted:

                def series(name: str, path: Path | None = None) -> Series:
                    return files.series(name, path=path, axis=axis, columns=columns, start=start, end=end)  # noqa: B023

                if len(overlaid) > 1:
                    found[panel.name] = [
                        _curve(panel, series(panel.main, path), label, place, str(place + 1))
                        for place, (label, path) in enumerate(overlaid)
                    ]
                else:
                    path = overlaid[0][1] if overlaid else None
                    found[panel.name] = [
                        _curve(panel, series(name, path), label, place - bool(panel.faint), _mark(panel, name), name)
                        for place, (name, label) in enumerate(panel.curves)
                    ]
            return found

        self.in_thread("curves", load, lambda found: self.run_worker(self._show(found), group="show", exclusive=True))

    async def _show(self, found: dict[str, list[Curve]]) -> None:
        """Draw one chart after another: all at once would keep keys waiting for a tenth of a second."""
        for panel in PANELS:
            if panel.name in found:
                await asyncio.sleep(BETWEEN_S)
                curves = [curve for curve in found[panel.name] if len(curve.x)]
                chart = self.charts[panel.name]
                chart.x_axis = self.x_axis
                last = curves[-1].y[-1] if len(curves) == 1 and len(curves[-1].y) else None
                chart.show(curves, note=number(float(last)) if last is not None else "")

    @on(PlotWidget.ScaleChanged)
    @on(Chart.ZoomedOut)
    def _zoomed(self) -> None:
        self.call_after_refresh(self._load)

    def action_log_axis(self) -> None:
        chart = self.focused if isinstance(self.focused, Chart) else self.charts[PANELS[0].name]
        chart.log_axis = not chart.log_axis
        chart.zoomed = False
        chart.show(chart.curves, note=chart.note)

    def action_axis(self) -> None:
        self.x_axis = NEXT_AXIS[self.x_axis]
        for chart in self.charts.values():
            if chart.is_mounted:
                chart.zoomed = False
                chart.set_xlimits(None, None)
        self._note()
        self._load()

    # Several trainings

    def action_overlay(self) -> None:
        files = self.dashboard.files
        self.in_thread("trainings", files.trainings, self._choose)

    def _choose(self, found: list[tuple[str, Path]]) -> None:
        files = self.dashboard.files
        known = dict(found) | dict(files.overlaid)
        if not known:
            self.notify("no training has written anything yet", markup=False)
            return

        def chosen(names: list[str] | None) -> None:
            if names is not None:
                files.overlaid = tuple((name, known[name]) for name in names)
                self.dashboard.watcher.refresh("metrics")
                self._note()
                self._load()

        taken = [name for name, _ in files.overlaid]
        self.app.push_screen(ChooseDialog("Draw over one another", list(known), taken), chosen)

    def _note(self, message: MetricsSeen | None = None) -> None:
        pages = -(-len(PANELS) // self.room)
        parts = [f"along {'steps' if self.x_axis == 'step' else 'time' if self.x_axis == 'time' else 'epochs'}"]
        parts += [f"charts {self.first // self.room + 1} of {pages} ([ ])"] if pages > 1 else []
        overlaid = self.dashboard.files.overlaid
        parts += [f"{len(overlaid)} trainings overlaid"] if len(overlaid) > 1 else []
        parts += [f"only {overlaid[0][0]} (o: others)"] if len(overlaid) == 1 else []
        if message is not None:
            view = message.view
            progress = view.progress
            parts += [f"reading {percent(view.share)}"] if not view.complete else []
            parts += [view.error] if view.error else []
            parts += [f"! silent for {duration(progress.silent_s)}"] if progress.stalled else []
        self.say("#charts-note", Content(" · ".join(parts)))


def _curve(panel: Panel, series: Series, label: str, colour: int, mark: str, name: str = "") -> Curve:
    return Curve(label, series.x, series.y * panel.scale, max(0, colour), name in panel.faint, mark)


def _mark(panel: Panel, name: str) -> str:
    """A sign for the end of a curve where several are drawn in one chart."""
    if name == "validation_loss":
        return "◆"
    return name[-1] if panel.name == "sigma" else ""
