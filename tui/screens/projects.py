"""Projects: the queue of this machine, and all other projects that are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from hv15.queue.changes import Step
from hv15.records.queue import QueuedState
from tui.data import projects
from tui.data.projects import ProjectRow, ProjectsView
from tui.dialogs.confirm import Answer, Confirm
from tui.messages import OpenLog, ProjectsSeen
from tui.screens.base import DashboardScreen
from tui.units import duration
from tui.widgets.projects_table import ProjectsTable
from tui.widgets.rows import Rows
from tui.widgets.states import state_text


class ProjectsScreen(DashboardScreen):
    """All projects, and what is known of the one under the cursor."""

    READS: ClassVar[frozenset[str]] = frozenset({"projects"})
    NAME: ClassVar[str] = "projects"
    FIRST: ClassVar[str] = "#projects-table"
    CSS_PATH = "projects.tcss"
    HELP = """The queue of this machine (`hv15 queue`) in its order, then other projects: this one, and those that use
    the same store. o: show the one under the cursor in this dashboard, a: add it, x: remove it, or stop it if it runs,
    K and J: up and down, r: again, p: pause, c: forget what has ended, enter: what its run printed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "open", "Open", id="projects-open", tooltip="show this project in the dashboard instead"),
        Binding("a", "add", "Queue it", id="projects-add", tooltip="add the project under the cursor to the queue"),
        Binding("x,delete", "remove", "Remove", id="projects-remove", tooltip="take it out of the queue, or stop it"),
        Binding("K,shift+up", "shift('up')", "Up", id="projects-up", key_display="K", tooltip="earlier in the queue"),
        Binding("J,shift+down", "shift('down')", "Down", id="projects-down", key_display="J", tooltip="later in it"),
        Binding("r", "retry", "Again", id="projects-retry", tooltip="let what failed or was stopped wait again"),
        Binding("p", "pause", "Pause", id="projects-pause", tooltip="start no further project, or continue"),
        Binding("c", "clear", "Clear", id="projects-clear", tooltip="forget what has ended; its files stay"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view = ProjectsView()
        self._added: Path | None = None
        """The config of a project that was just added, to which the cursor goes."""

    def body(self) -> Iterable[Widget]:
        with Vertical(id="projects-pane", classes="pane"):
            yield ProjectsTable(id="projects-table")
            yield Static(id="projects-error")
        with VerticalScroll(id="project-details", classes="pane"):
            yield Static(id="project-facts")

    def on_mount(self) -> None:
        self.query_one("#projects-pane").border_title = "Projects"

    def on_projects_seen(self, message: ProjectsSeen) -> None:
        view = self._view = message.view
        table = self.query_one(ProjectsTable)
        table.set_rows(view.rows)
        added = next((row for row in view.rows if row.number and row.config == self._added), None)
        if added is not None:
            self._added = None
            table.move_to_key(table.key(added))
        error = self.query_one("#projects-error", Static)
        error.set_class(bool(view.error), "-shown")
        self.say(error, Content(view.error))
        self.query_one("#projects-pane").border_subtitle = Content(_mode(view))
        self._show(table.current)

    @on(Rows.Moved, "#projects-table")
    def _moved(self) -> None:
        self._show(self.query_one(ProjectsTable).current)

    def _show(self, row: ProjectRow | None) -> None:
        details = self.query_one("#project-details")
        details.border_title = Content(row.name if row else "")
        self.say("#project-facts", _facts(row) if row else Content(""))

    @on(Rows.Chosen, "#projects-table")
    def _open_output(self) -> None:
        row = self.query_one(ProjectsTable).current
        if row is not None and row.output is not None:
            self.post_message(OpenLog(row.output))
        elif row is not None:
            self.notify("it has not run yet", markup=False)

    def action_open(self) -> None:
        row = self.query_one(ProjectsTable).current
        if row is not None and row.is_watched:
            self.notify("this dashboard shows it already", markup=False)
        elif row is not None:
            self.dashboard.open_project(row.config)

    # The queue

    def action_add(self) -> None:
        row = self.query_one(ProjectsTable).current
        if row is not None:
            self.notify(f"{row.name} is looked at, then added", markup=False)
            self._added = row.config
            self._change("add", lambda: projects.add_to_queue(row.config))

    def action_remove(self) -> None:
        row = self._queued()
        if row is None:
            return
        if not row.runs_from_queue:
            self._change("remove", lambda: projects.remove_from_queue(row.number))
            return

        def answered(answer: str | None) -> None:
            if answer == "stop":
                self._change("stop", lambda: projects.stop_project(row.root))

        answers = [Answer("stop", "Save and stop it", "x", "warning"), Answer("keep", "Let it run", "l")]
        words = "A training saves its state; the queue continues with the next project."
        self.app.push_screen(Confirm(f"{row.name} is running", words, answers), answered)

    def action_shift(self, step: Step) -> None:
        row = self._queued()
        if row is None:
            return
        if not row.waits:
            self._refuse("only what waits can be moved")
            return
        self._change("move", lambda: projects.move_in_queue(row.number, step))

    def action_retry(self) -> None:
        row = self._queued()
        if row is None:
            return
        if row.waits or row.runs_from_queue:
            self._refuse(f"it is {row.state}")
            return
        self._change("retry", lambda: projects.retry_in_queue(row.number))

    def action_pause(self) -> None:
        paused = not self._view.paused
        self._change("pause", lambda: projects.pause_queue(paused=paused))

    def action_clear(self) -> None:
        if not any(row.number and row.state in _ENDED for row in self._view.rows):
            self._refuse("nothing in the queue has ended")
            return
        self._change("clear", projects.clear_queue)

    def _queued(self) -> ProjectRow | None:
        """The row under the cursor if that is in the queue; otherwise this is said."""
        row = self.query_one(ProjectsTable).current
        if row is None or not row.number:
            self._refuse("it is not in the queue; a adds it")
            return None
        return row

    def _refuse(self, words: str) -> None:
        self.notify(words, title="Queue", severity="warning", markup=False)

    def _change(self, name: str, change: Callable[[], str | None]) -> None:
        """Change the queue in a thread, and show it."""

        def done(said: str | None) -> None:
            if said:
                self.notify(said, title="Queue", markup=False)
            self.dashboard.watcher.refresh("projects")

        self.in_thread(name, change, done)


_ENDED = tuple(str(state) for state in QueuedState if state.has_ended)


def _mode(view: ProjectsView) -> str:
    """How the queue works, in words."""
    worker = "" if view.worker is not None or not view.has_work else "no worker: `hv15 queue` starts it again"
    return " · ".join(filter(None, ("paused" if view.paused else "", view.mode, worker)))


def _facts(row: ProjectRow) -> Content:
    """What is known of a project, in lines."""
    state = state_text(row.state)
    if row.waits:
        state += Content(f" at place {row.place}")
    if row.since is not None:
        state += Content(f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row.since))}")
    if row.eta_s is not None:
        state += Content(f", {duration(row.eta_s)} left")
    lines = [
        ("folder", str(row.root)),
        ("makes", " ".join(row.targets)),
        ("progress", row.progress),
        ("why", row.note),
        ("what to do", row.cure),
        ("GPU", ", ".join(row.devices)),
        ("output", str(row.output) if row.output else ""),
    ]
    parts = [state]
    parts += [Content.assemble((f"{name:<11}", "$faint"), Content(text)) for name, text in lines if text]
    return Content("\n").join(parts)
