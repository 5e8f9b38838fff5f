"""The dashboard: ten screens, nine of them over one project, each a `mode` with a digit of its own.

The `Watcher` brings what `tui.data` reads from the files; what a person does goes to hv15's public functions. A run
does not depend on the dashboard: it continues when the dashboard is closed.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widget import Widget

from hv15.terminal_text import visible
from tui import signals
from tui.colours import few_colours, with_negatives
from tui.dialogs.confirm import Answer, Confirm
from tui.dialogs.help import HelpDialog, help_for
from tui.dialogs.jump import JumpOverlay, jump_targets
from tui.dialogs.palette import Palette
from tui.garbage import CHECK_S, Garbage
from tui.messages import OpenLog
from tui.no_color import tolerant
from tui.screens.charts import ChartsScreen
from tui.screens.config import ConfigScreen
from tui.screens.dataset import DatasetScreen
from tui.screens.experiments import ExperimentsScreen
from tui.screens.logs import LogsScreen
from tui.screens.projects import ProjectsScreen
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.screens.samples import SamplesScreen
from tui.screens.system import SystemScreen
from tui.serve import SERVER
from tui.stylesheet import CachedStylesheet
from tui.themes import DARK, LIGHT
from tui.watcher import Watcher
from tui.widgets.navigation import SCREENS, digit
from tui.widgets.still import ask_terminal

if TYPE_CHECKING:
    from tui.data.gpus import GpuSource
    from tui.project_files import ProjectFiles
    from tui.screens.base import DashboardScreen


class Dashboard(App[None]):
    """Watches and controls one project."""

    TITLE = "hv15"
    CSS_PATH = "dashboard.tcss"
    ENABLE_COMMAND_PALETTE = True
    MODES: ClassVar = {
        "run": RunScreen,
        "config": ConfigScreen,
        "charts": ChartsScreen,
        "samples": SamplesScreen,
        "dataset": DatasetScreen,
        "logs": LogsScreen,
        "system": SystemScreen,
        "runs": RunsScreen,
        "experiments": ExperimentsScreen,
        "projects": ProjectsScreen,
    }
    DEFAULT_MODE = "run"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012 (as Textual declares it)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-high"), (50, "-very-high")]  # noqa: RUF012

    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                f"{digit(name)},alt+{digit(name)}",
                f"app.switch_mode('{name}')",
                name.capitalize(),
                id=f"screen-{name}",
                show=False,
                tooltip=f"go to the screen {name.capitalize()} (alt+{digit(name)} from a text field)",
            )
            for name in SCREENS
        ),
        Binding("question_mark,f1", "help", "Help", id="help", key_display="?", tooltip="help for what has the focus"),
        Binding(
            "ctrl+o", "jump", "Jump", id="jump", show=False, tooltip="show a letter on everything; press it to go there"
        ),
        Binding("ctrl+p", "command_palette", "Palette", id="palette", show=False, tooltip="find a command by its name"),
        Binding("f2", "toggle_theme", "Theme", id="theme", show=False, tooltip="dark or light"),
        Binding(
            "m",
            "screen.maximize",
            "Maximise",
            id="maximise",
            show=False,
            tooltip="give what has the focus all the room; esc ends it",
        ),
        Binding(
            "q,ctrl+q", "leave", "Quit", id="quit", key_display="q", tooltip="leave the dashboard; the run continues"
        ),
    ]

    def __init__(self, config: Path, files: ProjectFiles | None = None, *, host: str = "") -> None:
        super().__init__()
        self._filters = tolerant(self._filters)
        self.stylesheet = CachedStylesheet(variables=self.get_css_variables())
        self.config_file = config
        if files is None:
            from tui.project_files import ProjectFiles

            files = ProjectFiles(config)
        self.files = files
        self.host = host or socket.gethostname().split(".")[0]
        self.watcher = Watcher(self, self.files.sources())
        self.opened: list[DashboardScreen] = []
        """The screens that have been shown."""
        self.next_project: Path | None = None
        """The config of the project that is shown instead when this one is left; None for none."""
        self._garbage = Garbage()
        for theme in (DARK, LIGHT):
            self.register_theme(with_negatives(theme) if few_colours(self) else theme)
        self.theme = DARK.name

    @property
    def base_screen(self) -> Screen[object]:
        """The screen of the current mode, below any dialog."""
        return self.screen_stack[0]

    @property
    def unsaved(self) -> list[str]:
        """What was edited on any screen and is not saved, in words."""
        return [screen.unsaved for screen in self.opened if screen.unsaved]

    @property
    def run_goes_on(self) -> bool:
        """Whether a run was alive when it was last looked at."""
        source = self.watcher.sources.get("run")
        return source is not None and source.value is not None and bool(source.value.alive)

    def on_mount(self) -> None:
        self._garbage.begin()
        if not (self.is_headless or self.is_web):  # the web's driver has its own way
            signals.listen(self)
        self.set_interval(CHECK_S, self._garbage.search_if_due)
        self.watcher.start()
        if self.is_web:
            self.set_interval(CHECK_S, partial(self._end_with, int(os.environ[SERVER])))

    def _end_with(self, server: int) -> None:
        """Leave when the server is gone without having said so."""
        if os.getppid() != server:
            signals.end(self, signal.SIGHUP)

    def on_unmount(self) -> None:
        self._garbage.end()

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent):
            self._garbage.note_input()
        await super().on_event(event)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for name in SCREENS:
            yield SystemCommand(
                f"Go to {name.capitalize()}", f"key {digit(name)}", lambda name=name: self.switch_mode(name)
            )
        for each in screen.active_bindings.values():
            if each.node is not self and each.binding.show and each.enabled:
                action, node = each.binding.action, each.node
                yield SystemCommand(
                    each.binding.description,
                    f"{each.tooltip} (key {self.get_key_display(each.binding)})",
                    lambda action=action, node=node: self.call_later(self.run_action, action, node),
                )
        yield SystemCommand("Dark or light", "change the theme (key f2)", self.action_toggle_theme)
        yield SystemCommand("Help", "for what has the focus (key ?)", self.action_help)
        yield SystemCommand("Quit", "the run continues (key q)", self.action_leave)

    async def on_open_log(self, message: OpenLog) -> None:
        await self.switch_mode("logs")
        if isinstance(self.base_screen, LogsScreen):
            self.base_screen.open_log(message.path)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        super().notify(visible(message), title=title, severity=severity, timeout=timeout, markup=markup)

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(text.encode("utf-8", "replace").decode())  # a name may hold bytes that are not UTF-8

    def action_command_palette(self) -> None:
        if not Palette.is_open(self):  # type: ignore[arg-type]  # it asks for an app of any result, which is invariant
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        self.push_screen(HelpDialog(help_for(self.screen)))

    def action_jump(self) -> None:
        def go(target: Widget | None) -> None:
            if target is not None:
                target.focus()

        self.push_screen(JumpOverlay(jump_targets(self.screen)), go)

    def action_toggle_theme(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def open_project(self, config: Path) -> None:
        """Leave this project and show another one."""
        self.action_leave(config)

    def action_leave(self, instead: Path | None = None) -> None:
        def leave(answer: str | None) -> None:
            if answer == "leave":
                self.next_project = instead
                self.exit()

        unsaved = self.unsaved
        if not unsaved:
            leave("leave")
            return
        answers = [Answer("stay", "Stay", "s"), Answer("leave", "Leave without them", "q", "warning")]
        self.push_screen(Confirm("Leave?", f"Not saved: {', '.join(unsaved)}.", answers), leave)


def main(project: Path, *, gpus: GpuSource | None = None) -> int:
    """Open the dashboard on a project folder or its config file; returns the exit code.

    Args:
        project: the folder or the file.
        gpus: where GPUs are read from, instead of the driver.

    Raises:
        UserError: there is no such project.
    """
    from hv15.runs.record import project_config
    from tui.project_files import ProjectFiles

    config: Path | None = project_config(project)
    ask_terminal()
    code = 0
    while config is not None:
        app = Dashboard(config, ProjectFiles(config, gpus=gpus))
        app.run()
        if app.run_goes_on:
            print(f"the run continues; watch it again with: hv15 tui {shlex.quote(str(app.files.root))}")
        code, config = app.return_code or 0, app.next_project
    return code
