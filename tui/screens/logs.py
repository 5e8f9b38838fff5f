"""Logs: every log of the project, of any size, followed, searched and filtered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from hv15.terminal_text import visible
from tui.messages import JobsSeen
from tui.screens.base import DashboardScreen
from tui.watcher import WatchedSource
from tui.widgets.log_list import LogEntry, LogList, LogListReader
from tui.widgets.log_view import LogView
from tui.widgets.rows import Rows


@dataclass
class LogsListed(Message):
    """The project's logs were listed."""

    entries: tuple[LogEntry, ...]


class LogsScreen(DashboardScreen):
    """A list of logs, beside the one that is open."""

    NAME: ClassVar[str] = "logs"
    READS: ClassVar[frozenset[str]] = frozenset({"logs"})
    FIRST: ClassVar[str] = "#logs"
    CSS_PATH = "logs.tcss"
    HELP = """All logs: what Snakemake printed, and what each job printed. A log of a gigabyte opens at once at its end;
    its lines are counted in the background. Escape sequences are left out, and nothing in a log is taken as markup."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask('search')", "Search", id="logs-search", key_display="/", tooltip="search; n, N: more"),
        Binding(
            "ampersand", "ask('filter')", "Filter", id="logs-filter", key_display="&", tooltip="matching lines only"
        ),
        Binding("escape", "back", "Back", id="logs-back", show=False, tooltip="leave the field, show all lines again"),
        Binding("c", "copy", "Copy path", id="logs-copy", show=False, tooltip="copy the log's path"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader: LogListReader | None = None
        self._requested: Path | None = None
        """The log that another screen asked for."""
        self._asks = "search"

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="logs-columns"):
            yield LogList(id="logs").add_class("pane")
            with Vertical(id="log-pane"):
                yield LogView(id="log").add_class("pane")
                yield Input(id="log-words", compact=True, select_on_focus=True)

    def on_mount(self) -> None:
        self.query_one("#logs").border_title = "Logs"
        self.query_one("#log").border_title = "Log"
        self._reader = LogListReader(self.dashboard.files.root)
        logs = WatchedSource("logs", self._reader.read, LogsListed, interval_s=3.0, share=0.01)
        self.dashboard.watcher.sources["logs"] = logs

    def open_log(self, path: Path) -> None:
        """Show a log that another screen asked for."""
        if not self.is_mounted:
            self._requested = path
        else:
            self._open(path)
            self.query_one(LogList).move_to_key(path)
            self.query_one(LogView).focus()

    # What is seen

    def on_jobs_seen(self, message: JobsSeen) -> None:
        if self._reader is not None:
            self._reader.jobs = message.view.jobs

    def on_logs_listed(self, message: LogsListed) -> None:
        entries, chosen = self.query_one(LogList), self.query_one(LogView).path
        entries.set_rows(message.entries)
        entries.border_subtitle = str(len(message.entries))
        if self._requested is not None:
            asked, self._requested = self._requested, None
            self.open_log(asked)
        elif chosen is not None:
            entries.move_to_key(chosen)
        elif entries.current is not None:
            self._open(entries.current.path)

    @on(Rows.Moved, "#logs")
    def _moved(self, message: Rows.Moved) -> None:
        if isinstance(message.row, LogEntry) and self.query_one(LogList).has_focus:
            self._open(message.row.path)

    @on(Rows.Chosen, "#logs")
    def _chosen(self, message: Rows.Chosen) -> None:
        if isinstance(message.row, LogEntry):
            self._open(message.row.path)
            self.query_one(LogView).focus()

    def _open(self, path: Path) -> None:
        view, root = self.query_one(LogView), self.dashboard.files.root
        if view.path != path:
            self._close_field()
            view.open(path)
            view.border_title = Content(visible(str(path.relative_to(root) if path.is_relative_to(root) else path)))

    # Search and filter

    def action_ask(self, what: str) -> None:
        field = self.query_one("#log-words", Input)
        self._asks = what
        field.placeholder = (
            "search for (a regular expression; enter)" if what == "search" else "show only lines with (enter)"
        )
        field.add_class("-shown")
        field.focus()

    @on(Input.Submitted, "#log-words")
    def _asked_for(self, message: Input.Submitted) -> None:
        view = self.query_one(LogView)
        if self._asks == "search":
            view.search(message.value)
        else:
            view.filter_by(message.value)
        self._close_field()
        view.focus()

    def action_back(self) -> None:
        view, field = self.query_one(LogView), self.query_one("#log-words", Input)
        if field.has_focus:
            self._close_field()
            view.focus()
        elif view.filtered:
            view.filter_by("")
        else:
            view.search("")
            self.query_one(LogList).focus()

    def _close_field(self) -> None:
        self.query_one("#log-words").remove_class("-shown")

    def action_copy(self) -> None:
        path = self.query_one(LogView).path
        if path is not None:
            self.app.copy_to_clipboard(str(path))
            self.notify(str(path), title="Copied", markup=False)
