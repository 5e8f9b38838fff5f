"""Charts: what the training measures, one curve over another, of one run or of several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual_plot import PlotWidget

from tui.data.curves import CHARTS, Axis, ChartInfo, CurveSource, Series, sign_of
from tui.data.overlay_names import overlay_names
from tui.dialogs.choose import ChooseDialog
from tui.messages import MetricsSeen
from tui.project_files import MetricsView
from tui.screens.base import TRAINING_TIP, DashboardScreen
from tui.units import duration, number, percent
from tui.widgets.chart import Chart, Curve, curves_to_draw
from tui.workers import run_beside

BETWEEN_S = 0.02
"""Pause between two charts, so that each is mounted and drawn by itself."""
LONGEST_NAME = 32
"""Characters of the settings by which a curve is called; the note below the charts has all of them."""
NEXT_AXIS: dict[Axis, Axis] = {"step": "time", "time": "epoch", "epoch": "step"}


class ChartsScreen(DashboardScreen):
    """As many charts as there is room for; [ and ] go through the others."""

    NAME: ClassVar[str] = "charts"
    FIRST: ClassVar[str] = "#chart-loss"
    CSS_PATH = "charts.tcss"
    HELP = """What the training measures. y: logarithmic axis, a: steps, time or epochs, o: several trainings over one
    another, i: validation, moving average, segments and warnings of the training, [ and ]: the other charts, m: one
    chart alone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "log_axis", "Log", id="charts-log", tooltip="linear or logarithmic, of the chart with the focus"),
        Binding("a", "axis", "Axis", id="charts-axis", tooltip="along steps, time of training, or epochs"),
        Binding("o", "overlay", "Overlay", id="charts-overlay", tooltip="choose trainings to draw over one another"),
        Binding("i", "training", "Training", id="charts-training", tooltip=TRAINING_TIP),
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
        self._view: MetricsView | None = None
        self._names: dict[str, str] = {}
        """What distinguishes the trainings drawn over one another, by label."""
        self.charts = {info.name: Chart(info.title, id=f"chart-{info.name}", classes="pane") for info in CHARTS}
        """All of them; only those that have been shown are mounted."""

    def body(self) -> Iterable[Widget]:
        yield Container(self.charts[CHARTS[0].name], id="charts")
        yield Static(id="charts-note")

    def on_mount(self) -> None:
        self.call_after_refresh(self._fill_page)

    def on_resize(self) -> None:
        self.call_after_refresh(self._fill_page)

    @property
    def room(self) -> int:
        """How many charts are shown at a time."""
        wide, narrow = self.app.size.width >= 160, self.app.size.width < 100
        short = self.app.size.height < 32
        columns = 3 if wide else 1 if narrow else 2
        rows = 1 if short else 2 if narrow else 3
        return columns * rows

    def _fill_page(self) -> None:
        """Show the charts of this page, and load them."""
        run_beside(self, self._show_page, "charts-page", exclusive=True)

    async def _show_page(self) -> None:
        self.first = max(0, min(self.first, len(CHARTS) - 1)) // self.room * self.room
        shown = CHARTS[self.first : self.first + self.room]
        for place, info in enumerate(CHARTS):
            chart = self.charts[info.name]
            chart.display = info in shown
            if chart.display and chart.parent is None:
                mounted = [after for each in CHARTS[place:] if (after := self.charts[each.name]).parent is not None]
                await asyncio.sleep(BETWEEN_S)
                await self.query_one("#charts", Container).mount(chart, before=mounted[0] if mounted else None)
        if self.focused is None or not self.focused.display:
            self.charts[shown[0].name].focus()
        self._note()
        self.call_after_refresh(self._load)

    def action_page(self, pages: int) -> None:
        count = -(-len(CHARTS) // self.room)
        self.first = (self.first // self.room + pages) % count * self.room
        self._fill_page()

    # Curves

    def on_metrics_seen(self, message: MetricsSeen) -> None:
        self._view = message.view
        self._load()
        self._note()

    def _load(self) -> None:
        """Thin the curves of the charts that are shown to what can be drawn, in a thread."""
        if not self.is_current:
            return
        files, axis, overlaid = self.dashboard.files, self.x_axis, self.dashboard.files.overlaid
        wanted = [
            (info, chart.columns, *((chart.seen_x) if chart.zoomed else (None, None)))
            for info in CHARTS
            if (chart := self.charts[info.name]).is_mounted and chart.display
        ]

        def load() -> tuple[dict[str, list[Curve]], dict[str, str]]:
            found: dict[str, list[Curve]] = {}
            names = files.overlay_names()
            for info, columns, start, end in wanted:

                def series(curve: CurveSource, path: Path | None = None) -> Series:
                    return files.series(curve, path=path, axis=axis, columns=columns, start=start, end=end)  # noqa: B023

                if len(overlaid) > 1:
                    found[info.name] = [
                        _of_training(info, _short(names.get(label, ""), label), number, series(info.main, path))
                        for number, (label, path) in enumerate(overlaid)
                    ]
                else:
                    path = overlaid[0][1] if overlaid else None
                    found[info.name] = curves_to_draw(info, [series(curve, path) for curve in info.curves])
            return found, names

        def loaded(result: tuple[dict[str, list[Curve]], dict[str, str]]) -> None:
            found, self._names = result
            self._note()
            self.run_worker(self._show(found), group="show", exclusive=True)

        self.in_thread("curves", load, loaded)

    async def _show(self, found: dict[str, list[Curve]]) -> None:
        """Draw one chart after another: all at once would delay keys by a tenth of a second."""
        for info in CHARTS:
            if info.name in found:
                await asyncio.sleep(BETWEEN_S)
                curves = [curve for curve in found[info.name] if len(curve.x)]
                chart = self.charts[info.name]
                chart.x_axis = self.x_axis
                last = curves[-1].y[-1] if len(curves) == 1 and len(curves[-1].y) else None
                chart.show(curves, note=number(float(last)) if last is not None else "")

    @on(PlotWidget.ScaleChanged)
    @on(Chart.ZoomedOut)
    def _zoomed(self) -> None:
        self.call_after_refresh(self._load)

    def action_log_axis(self) -> None:
        chart = self.focused if isinstance(self.focused, Chart) else self.charts[CHARTS[0].name]
        info = next(info for info in CHARTS if self.charts[info.name] is chart)
        if not info.log:
            self.notify(f"a logarithmic axis makes no sense here: {info.title}", markup=False)
            return
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
        self.in_thread(
            "names",
            lambda: overlay_names(known),
            lambda notes: self.app.push_screen(ChooseDialog("Draw over one another", known, taken, notes), chosen),
        )

    def _note(self) -> None:
        pages = -(-len(CHARTS) // self.room)
        parts = [f"along {'steps' if self.x_axis == 'step' else 'time' if self.x_axis == 'time' else 'epochs'}"]
        parts += [f"charts {self.first // self.room + 1} of {pages} ([ ])"] if pages > 1 else []
        overlaid = self.dashboard.files.overlaid
        parts += [f"{len(overlaid)} trainings overlaid"] if len(overlaid) > 1 else []
        parts += [f"only {overlaid[0][0]} (o: others)"] if len(overlaid) == 1 else []
        if (view := self._view) is not None:
            training = view.training
            parts += [f"reading {percent(view.share)}"] if not view.complete else []
            parts += [view.error] if view.error else []
            parts += [f"! silent for {duration(training.silent_s)}"] if training.stalled else []
        named = [
            f"{sign_of(place)} {label}: {self._names[label] or 'the same settings'}"
            for place, (label, _) in enumerate(overlaid)
            if len(overlaid) > 1 and label in self._names
        ]
        self.say("#charts-note", Content("\n".join([" · ".join(parts), *named])))


def _short(name: str, label: str) -> str:
    """What a training is called beside its sign: what distinguishes it, if that is known and short, else its label."""
    return name if 0 < len(name) <= LONGEST_NAME else label


def _of_training(info: ChartInfo, label: str, number: int, series: Series) -> Curve:
    """The curve of one of several trainings, marked with its sign."""
    return Curve(label, series.x, series.y * info.scale, number, mark=sign_of(number))
