"""The names of the ten screens in one line; a digit or a click goes there."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

SCREENS = ("run", "config", "charts", "samples", "dataset", "logs", "system", "runs", "experiments", "projects")
"""In the order of their digits; the last has 0."""


SHORT = {"dataset": "data", "system": "sys.", "experiments": "exp.", "projects": "proj."}
"""Names where there is little room."""
WHOLE = 104
"""Columns from which all names are whole."""


def digit(name: str) -> int:
    """Return the digit of a screen."""
    return (SCREENS.index(name) + 1) % 10


class Navigation(Horizontal):
    """Shows the current screen."""

    DEFAULT_CSS = """
    Navigation { height: 1; background: $surface; padding: 0 1; }
    """

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        for name in SCREENS:
            yield NavigationItem(digit(name), name, current=name == self._current)

    def on_resize(self) -> None:
        for item in self.query(NavigationItem):
            item.show(whole=self.size.width >= WHOLE)


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
        super().__init__(classes="-current" if current else None)
        self._number, self._mode, self._is_current = number, name, current
        self.show(whole=True)

    def show(self, *, whole: bool) -> None:
        """Show the name, shortened and closer to the next one unless it is to be whole."""
        name = self._mode if whole else SHORT.get(self._mode, self._mode)
        before, after = ("[", "]") if self._is_current else (" ", " " if whole else "")
        content = Content.assemble(before, (str(self._number), "$accent"), f" {name.capitalize()}", after)
        if self.content != content:
            self.update(content)

    def on_click(self) -> None:
        self.app.switch_mode(self._mode)
