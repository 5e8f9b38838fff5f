"""Jump mode: a letter on each widget that can have the focus; pressing it goes there."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Label

LETTERS = "asdfghjklweruiopzxcvbnmty"


class JumpOverlay(ModalScreen[Widget | None]):
    """Lies over a screen, shows the letters, and returns the widget whose letter was pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+o", "dismiss(None)", "Close", id="jump-close", tooltip="stay where you are")
    ]

    DEFAULT_CSS = """
    JumpOverlay { background: transparent; }
    JumpOverlay Label { position: absolute; background: $accent; color: $background; text-style: bold; }
    """

    def __init__(self, targets: list[Widget]) -> None:
        super().__init__()
        self._targets = dict(zip(LETTERS, targets, strict=False))

    def compose(self) -> ComposeResult:
        for letter, target in self._targets.items():
            label = Label(f" {letter} ", markup=False)
            label.absolute_offset = target.region.offset
            yield label

    def on_key(self, event: events.Key) -> None:
        if event.character in self._targets:
            event.stop()
            self.dismiss(self._targets[event.character])


def jump_targets(screen: Screen[object]) -> list[Widget]:
    """Return the visible widgets of a screen that can have the focus, from top to bottom."""
    seen = [widget for widget in screen.focus_chain if widget.region.area and screen.region.overlaps(widget.region)]
    return sorted(seen, key=lambda widget: (widget.region.y, widget.region.x))
