"""The names of the eight screens in one line; a digit or a click goes there."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

SCREENS = ("run", "config", "charts", "samples", "dataset", "logs", "system", "runs")
"""In the order of their digits."""


class Navigation(Horizontal):
    """Shows the current screen."""

    DEFAULT_CSS = """
    Navigation { height: 1; background: $surface; padding: 0 1; }
    """

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        for number, name in enumerate(SCREENS, start=1):
            yield NavigationItem(number, name, current=name == self._current)


class NavigationItem(Static):
    """One name. The screen that is shown is bold and in brackets."""

    DEFAULT_CSS = """
    NavigationItem {
        width: auto; padding: 0; color: $faint;
        &:hover { color: $foreground; background: $panel; }
        &.-current { color: $foreground; text-style: bold; background: $panel; }
    }
    """

    def __init__(self, number: int, name: str, *, current: bool) -> None:
        before, after = ("[", "]") if current else (" ", " ")
        super().__init__(
            Content.assemble(before, (str(number), "$accent"), f" {name.capitalize()}", after),
            classes="-current" if current else None,
        )
        self._mode = name

    def on_click(self) -> None:
        self.app.switch_mode(self._mode)
