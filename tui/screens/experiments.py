"""Experiments: which wait, run and are done, how good each is, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from hv15.comparison.numbers import VALIDATION_BEST, decimals, spread_text
from tui.data.curves import sign_of
from tui.data.experiments import (
    ExperimentRow,
    ExperimentState,
    ExperimentsView,
    best_first,
    experiments_of,
    to_overlay,
)
from tui.data.rerun import Rerun
from tui.dialogs.start import StartDialog
from tui.messages import ExperimentsSeen, OpenLog
from tui.screens.base import DashboardScreen
from tui.units import duration, number
from tui.widgets.experiments_table import BEST, ExperimentsTable
from tui.widgets.rows import Rows
from tui.widgets.states import state_text

TARGET = "experiments"
"""What makes all of them, and their comparison."""
MOST_OVERLAID = 12
NOT_COMPARABLE = "the losses cannot be compared: other clips or noise levels (train.validation.noise_levels: even)"


class ExperimentsScreen(DashboardScreen):
    """All experiments, and what is known of the one under the cursor."""

    READS: ClassVar[frozenset[str]] = frozenset({"experiments"})
    NAME: ClassVar[str] = "experiments"
    FIRST: ClassVar[str] = "#experiments-table"
    CSS_PATH = "experiments.tcss"
    HELP = """The experiments of the config (`experiments:`, `sweep:`) with their states, steps and lowest validation
    losses. s: run all of them, b: the best first, space: overlay its curves on Charts, a: overlay all, d: ask which of
    the finished ones are out of date."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", id="experiments-start", tooltip="run all experiments that are not done"),
        Binding("space", "take", "Overlay", id="experiments-take", tooltip="draw its curves over others, on Charts"),
        Binding("a", "take_all", "All", id="experiments-all", tooltip="draw the curves of all over one another"),
        Binding("b", "sort", "Best first", id="experiments-sort", tooltip="the best first, or as in the config"),
        Binding("d", "due", "Out of date", id="experiments-due", tooltip="which finished ones would be made again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view = ExperimentsView()
        self._best_first = False
        self._asked = False

    def body(self) -> Iterable[Widget]:
        with Vertical(id="experiments-pane", classes="pane"):
            yield ExperimentsTable(id="experiments-table")
            yield Static(id="experiments-error")
        with VerticalScroll(id="experiment-details", classes="pane"):
            yield Static(id="experiment-facts")

    def on_mount(self) -> None:
        self.query_one("#experiments-pane").border_title = "Experiments"

    def on_screen_resume(self) -> None:
        self._mark()

    def on_experiments_seen(self, message: ExperimentsSeen) -> None:
        self._view = message.view
        self._fill()

    def _fill(self) -> None:
        view, table = self._view, self.query_one(ExperimentsTable)
        table.set_rows(best_first(view.rows) if self._best_first else view.rows)
        error = self.query_one("#experiments-error", Static)
        error.set_class(bool(view.error), "-shown")
        self.say(error, Content(view.error))
        pane = self.query_one("#experiments-pane")
        pane.border_title = Content("Experiments, the best first" if self._best_first else "Experiments")
        pane.border_subtitle = Content(_counts(view))
        self._show(table.current)

    @on(Rows.Moved, "#experiments-table")
    def _moved(self) -> None:
        self._show(self.query_one(ExperimentsTable).current)

    def _show(self, row: ExperimentRow | None) -> None:
        details = self.query_one("#experiment-details")
        details.border_title = Content(row.name if row else "")
        self.say("#experiment-facts", _facts(row, self._view) if row else Content(""))

    @on(Rows.Chosen, "#experiments-table")
    def _open_log(self) -> None:
        row = self.query_one(ExperimentsTable).current
        if row is not None:
            self.post_message(OpenLog(row.log))

    def action_sort(self) -> None:
        self._best_first = not self._best_first
        self._fill()

    # Runs

    def action_start(self) -> None:
        if self.dashboard.run_goes_on:
            self.notify("a run is in progress; x on Run stops it", title="Start", severity="warning", markup=False)
            return
        files = self.dashboard.files

        def start(targets: list[str] | None) -> None:
            if targets is not None:
                self.in_thread("start", lambda: files.start(targets), self._started)

        dialog = StartDialog(lambda targets: files.dry_run(targets=targets), files.preflight, target=TARGET)
        self.app.push_screen(dialog, start)

    def _started(self, said: str) -> None:
        self.notify(said, markup=False)
        self.dashboard.watcher.refresh("run", "jobs", "experiments")

    def action_due(self) -> None:
        files = self.dashboard.files
        self.in_thread("due", lambda: files.dry_run(targets=[TARGET]).run(), self._found_due)

    def _found_due(self, found: Rerun) -> None:
        if found.error:
            self.notify(found.error, title="Not known", severity="error", markup=False)
            return
        self.dashboard.files.due_experiments = experiments_of(stage.name for stage in found.stages)
        self.notify(found.summary, markup=False)
        self.dashboard.watcher.refresh("experiments")

    # Overlay

    def action_take(self) -> None:
        row = self.query_one(ExperimentsTable).current
        if row is None:
            return
        if not row.step:
            self.notify("it has not trained yet", title="Overlay", severity="warning", markup=False)
            return
        files = self.dashboard.files
        curve = (row.name, row.metrics)
        others = tuple(each for each in files.overlaid if each != curve)
        self._overlay(others if curve in files.overlaid else (*others, curve))

    def action_take_all(self) -> None:
        found: Mapping[str, Path] = to_overlay(self._view.rows, MOST_OVERLAID)
        if not found:
            self.notify("none has trained yet", title="Overlay", severity="warning", markup=False)
            return
        taken = {*self.dashboard.files.overlaid} == {*found.items()}
        self._overlay(() if taken else tuple(found.items()))
        left_out = sum(bool(row.step) for row in self._view.rows) - len(found)
        if left_out and not taken:
            self.notify(f"the {len(found)} best; {left_out} more would be too many", markup=False)

    def _overlay(self, curves: tuple[tuple[str, Path], ...]) -> None:
        files = self.dashboard.files
        added = len(curves) > len(files.overlaid)
        files.overlaid = curves
        self._mark()
        self.dashboard.watcher.refresh("metrics")
        if added:
            self.notify("the curves are on Charts (3)", markup=False)

    def _mark(self) -> None:
        """Mark the experiments whose curves are overlaid as Charts does."""
        table = self.query_one(ExperimentsTable)
        names = {row.name: row.metrics for row in self._view.rows}
        overlaid = enumerate(self.dashboard.files.overlaid)
        table.taken = {name: sign_of(place) for place, (name, path) in overlaid if names.get(name) == path}
        table.refresh()


def _counts(view: ExperimentsView) -> str:
    """How many are in each state, in words."""
    counts = [(state, view.count(state)) for state in ExperimentState]
    return " · ".join(f"{count} {state}" for state, count in counts if count)


def _facts(row: ExperimentRow, view: ExperimentsView) -> Content:
    """What is known of an experiment, in lines."""
    state = state_text(str(row.state))
    if row.doing:
        state += Content.assemble(": ", row.doing)
    if row.eta_s is not None:
        state += Content.assemble(f", {duration(row.eta_s)} left")
    lines = [("changes", row.settings or "nothing")]
    if row.best is not None and row.last is not None:
        best = f"{number(row.best.loss)} after step {row.best.step}, the last {number(row.last.loss)}"
        if row.last.trained_loss is not None:
            best += f" (on trained clips {number(row.last.trained_loss)})"
        lines.append(("validation", f"{best}{f'  {BEST} the lowest of all' if row.is_best else ''}"))
    if row.of_group is not None:
        digits = decimals(VALIDATION_BEST, [row.of_group])
        lines.append(("seeds", f"{spread_text(row.of_group, digits)} over {row.of_group.repetitions} ({row.group})"))
    if not view.is_comparable:
        lines.append(("note", NOT_COMPARABLE))
    parts = [state, *(Content.assemble((f"{name:<12}", "$faint"), text) for name, text in lines)]
    return Content("\n").join(parts)
