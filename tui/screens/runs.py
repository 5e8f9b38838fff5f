"""Runs: what ran in this project, with which settings, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from hv15.errors import UserError
from hv15.runs import control
from tui.data.config_diff import Change, DiffLine, setting_changes, text_diff
from tui.data.curves import sign_of
from tui.data.history import RunRow
from tui.dialogs.confirm import Answer, Confirm
from tui.messages import OpenLog, RunSeen
from tui.screens.base import DashboardScreen
from tui.units import duration, size
from tui.widgets.changes_view import ChangesView
from tui.widgets.diff_view import DiffView
from tui.widgets.pages import Pages
from tui.widgets.rows import Rows
from tui.widgets.runs_table import RunsTable
from tui.widgets.states import state_text

BEFORE, NOW, LINES, FACTS = range(4)


class RunsScreen(DashboardScreen):
    """The history, and what differs for the run under the cursor."""

    NAME: ClassVar[str] = "runs"
    FIRST: ClassVar[str] = "#runs-table"
    CSS_PATH = "runs.tcss"
    HELP = """The history of this project's runs. Below: what changed since the run before, what differs from the config
    as it is now, and how the run was started."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "take", "Overlay", id="runs-take", tooltip="draw this run's curves over others, on Charts"),
        Binding("t", "turn(1)", "Next page", id="runs-turn", tooltip="changes, differences to now, facts"),
        Binding("l", "open_output", "Output", id="runs-output", tooltip="what the run printed"),
        Binding("x", "end_orphans", "End left over", id="runs-orphans", tooltip="end the processes of dead runs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._curves: dict[str, list[tuple[str, Path]]] = {}
        """Run -> names and files of its curves, for runs that were selected at some time."""
        self._orphans = 0
        self._changes, self._now = ChangesView(id="run-changes"), ChangesView(id="run-now")
        self._lines, self._facts = DiffView(id="run-lines"), Static(id="run-facts")

    def body(self) -> Iterable[Widget]:
        with Container(id="runs-rows"):
            with Vertical(id="runs-pane", classes="pane"):
                yield RunsTable(id="runs-table")
                yield Static(id="orphans")
            yield Pages(
                [
                    ("Changed since the run before", self._changes),
                    ("Settings now", self._now),
                    ("Lines now", self._lines),
                    ("Facts", VerticalScroll(self._facts, id="facts-scroll")),
                ],
                id="run-details",
                classes="pane",
            )

    def on_mount(self) -> None:
        self.query_one("#runs-pane").border_title = "Runs"

    def on_screen_resume(self) -> None:
        self._mark()

    def on_run_seen(self, message: RunSeen) -> None:
        view = message.view
        table = self.query_one(RunsTable)
        table.set_rows(view.rows)
        self.query_one("#runs-pane").border_subtitle = Content(f"{len(view.rows)}")
        lines = [
            f"pid {orphan.pid} of a dead run still works ({size(orphan.rss)}): {orphan.command}"
            for orphan in view.orphans
        ]
        self._orphans = len(lines)
        self.query_one("#orphans").set_class(bool(lines), "-shown")
        cure = ["x ends them; a training saves its state first"] if lines else []
        self.say("#orphans", Content("\n".join([*lines[:4], *cure])))
        self._show(table.current)

    @on(Rows.Moved, "#runs-table")
    def _moved(self) -> None:
        self._show(self.query_one(RunsTable).current)

    def _show(self, row: RunRow | None) -> None:
        rows = self.query_one(RunsTable).rows
        first = bool(rows) and row is rows[-1]
        self._changes.empty = "the first run of this project" if first else "the same settings as the run before"
        self._changes.set_rows(row.changes if row else ())
        self.query_one(Pages).say(BEFORE, str(len(row.changes)) if row and row.changes else "")
        if row is None:
            return
        self.say(self._facts, _facts(row))
        now = self.dashboard.config_file

        def compare() -> tuple[list[Change], list[DiffLine]]:
            try:
                then_text, now_text = _read(row.folder.config), _read(now)
            except OSError as error:
                raise UserError(f"cannot be read ({error.strerror}): {error.filename}") from error
            return setting_changes(then_text, now_text), text_diff(then_text, now_text)

        def failed(error: Exception) -> None:
            self._show_now(([], []), str(getattr(error, "message", error)))

        self.in_thread("compare", compare, self._show_now, failed)

    def _show_now(self, found: tuple[list[Change], list[DiffLine]], problem: str = "") -> None:
        changes, lines = found
        self._now.empty = problem or "the same settings as config.yaml now"
        self._lines.empty = problem or "the same text as config.yaml now"
        self._now.set_rows(changes)
        self._lines.set_rows(lines)
        self.query_one(Pages).say(NOW, str(len(changes)) if changes else "")

    def action_turn(self, count: int) -> None:
        pages = self.query_one(Pages)
        pages.turn(pages.page + count)

    @on(Rows.Chosen, "#runs-table")
    def action_open_output(self) -> None:
        row = self.query_one(RunsTable).current
        if row is not None:
            self.post_message(OpenLog(row.folder.output))

    # Overlay

    def action_take(self) -> None:
        row = self.query_one(RunsTable).current
        if row is None:
            return
        files = self.dashboard.files
        self.in_thread("take", lambda: files.metrics_of(row), lambda found: self._take(row, found))

    def _take(self, row: RunRow, found: list[tuple[str, Path]]) -> None:
        if not found:
            words = "this run kept no curves: it trained nothing, or a later training replaced them"
            self.notify(words, title="Overlay", severity="warning", markup=False)
            return
        self._curves[row.id] = found
        files = self.dashboard.files
        others = tuple(each for each in files.overlaid if each not in found)
        taken = row.id not in self.query_one(RunsTable).taken
        files.overlaid = (*others, *found) if taken else others
        self._mark()
        self.dashboard.watcher.refresh("metrics")
        if taken:
            self.notify("its curves are on Charts (3)", markup=False)

    def _mark(self) -> None:
        """Mark the runs whose curves are overlaid as Charts does."""
        overlaid = self.dashboard.files.overlaid
        table = self.query_one(RunsTable)
        table.taken = {
            run: sign_of(overlaid.index(curves[0])) for run, curves in self._curves.items() if {*curves} <= {*overlaid}
        }
        table.refresh()

    # What dead runs left

    def action_end_orphans(self) -> None:
        if not self._orphans:
            self.notify("no processes are left over", markup=False)
            return
        root = self.dashboard.files.root

        def answered(answer: str | None) -> None:
            if answer is not None:
                self.in_thread(
                    "orphans", lambda: control.end_orphans(root, now=answer == "kill"), lambda _: self._ended()
                )

        answers = [Answer("stop", "Save and end them", "x", "warning"), Answer("kill", "Kill now", "k", "error")]
        self.app.push_screen(Confirm("Processes of a dead run", "They still work on this project.", answers), answered)

    def _ended(self) -> None:
        self.notify("they were asked to end", markup=False)
        self.dashboard.watcher.refresh("run")


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _facts(row: RunRow) -> Content:
    def when(moment: float | None) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else "?"

    lines = [
        ("id", row.id),
        ("started", when(row.started)),
        ("ended", when(row.ended) if row.ended else "not yet" if row.alive else "?"),
        ("took", duration(row.seconds)),
        ("host", row.host),
        ("targets", " ".join(row.targets)),
        ("command", row.command),
        ("folder", str(row.folder.path)),
    ]
    reason = Content.assemble(": ", row.reason) if row.reason else Content("")
    parts = [state_text(str(row.state)) + reason]
    parts += [Content.assemble((f"{name:<9}", "$faint"), text) for name, text in lines if text]
    return Content("\n").join(parts)
