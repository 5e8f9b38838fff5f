"""What all ten screens share: the status line on top, the names of the screens, the footer, and their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from tui.data.training_facts import TrainingFacts
from tui.dialogs.training import TrainingDialog
from tui.messages import JobsSeen, MachineSeen, MetricsSeen, RunSeen, SourceFailed
from tui.widgets.key_footer import KeyFooter
from tui.widgets.navigation import Navigation
from tui.widgets.status_line import StatusLine
from tui.workers import run_beside

if TYPE_CHECKING:
    from tui.app import Dashboard

T = TypeVar("T")
TRAINING_TIP = "the training's validation, moving average, segments and warnings"


class DashboardScreen(Screen[None]):
    """One of the ten. A subclass composes its `body` and lists in READS the sources whose messages it needs."""

    READS: ClassVar[frozenset[str]] = frozenset()
    NAME: ClassVar[str] = ""
    """Its name among the screens: the key in `Dashboard.MODES`."""
    FIRST: ClassVar[str] = ""
    """Selector of the widget that has the focus at first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave_field", "Leave", id="leave-field", show=False, tooltip="leave a text field"),
    ]

    @property
    def unsaved(self) -> str:
        """What was edited here and is not saved, in words; "" for nothing."""
        return ""

    @property
    def dashboard(self) -> Dashboard:
        """The app, with its own type."""
        return self.app  # type: ignore[return-value]  # Textual knows it as App; no other one shows these screens

    def compose(self) -> ComposeResult:
        self._take_size()
        yield StatusLine()
        yield Navigation(self.NAME)
        with Container(id="body"):
            yield from self.body()
        yield KeyFooter()

    def _take_size(self) -> None:
        """Have the classes of the terminal's size from the beginning, else all widgets get their style once more."""
        app = self.dashboard
        for cells, breakpoints in zip(app.size, (app.HORIZONTAL_BREAKPOINTS, app.VERTICAL_BREAKPOINTS), strict=True):
            self.update_classes(dict.fromkeys(self._get_breakpoint_classes(cells, breakpoints), True), update=False)

    def body(self) -> Iterable[Widget]:
        """Yield the widgets between the status line and the footer."""
        return ()

    def on_mount(self) -> None:
        self.dashboard.opened.append(self)
        if self.FIRST:
            self.query_one(self.FIRST).focus()

    def on_screen_resume(self) -> None:
        self.dashboard.watcher.replay()

    def on_run_seen(self, message: RunSeen) -> None:
        self.query_one(StatusLine).show_run(self.dashboard.config_file.parent.name, message.view)

    def on_jobs_seen(self, message: JobsSeen) -> None:
        self.query_one(StatusLine).show_jobs(message.view)

    def on_metrics_seen(self, message: MetricsSeen) -> None:
        self.query_one(StatusLine).show_training(message.view)

    def on_machine_seen(self, message: MachineSeen) -> None:
        self.query_one(StatusLine).show_machine(message.sample, self.dashboard.host)

    def on_source_failed(self, message: SourceFailed) -> None:
        self.notify(message.error, title=f"cannot read {message.source}", severity="error", markup=False)

    def action_training(self) -> None:
        """Show what is known of the training besides its curves."""

        def shown(facts: TrainingFacts) -> None:
            self.app.push_screen(TrainingDialog(facts))

        self.in_thread("training", self.dashboard.files.training_facts, shown)

    def action_leave_field(self) -> None:
        self.set_focus(None)

    def in_thread(
        self,
        name: str,
        function: Callable[[], T],
        then: Callable[[T], object],
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Call `function` in a thread, then `then` with its result in the UI; a newer call with this name wins.

        Errors go to `failed`, by default into a notification.
        """

        async def work() -> None:
            try:
                result = await asyncio.to_thread(function)
            except Exception as error:  # shown to the user, whatever it is
                (failed or self.show_error)(error)
            else:
                then(result)

        run_beside(self, work, f"{self.NAME}-{name}", name=name, exclusive=True)

    def say(self, where: str | Static, text: Content | str) -> None:
        """Update the text of a Static if it differs: each update lays out the whole screen again."""
        place = self.query_one(where, Static) if isinstance(where, str) else where
        if place.content != text:
            place.update(text)

    def show_error(self, error: Exception) -> None:
        """Show an error; a UserError has its own message and hint."""
        message = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        hint = getattr(error, "hint", "")
        self.notify(f"{message}\n{hint}".strip(), title="That did not work", severity="error", markup=False, timeout=12)
