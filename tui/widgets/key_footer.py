"""The line of keys at the bottom, made anew only when it is to show other keys.

Textual's own is made anew at each change of focus, each key of it a widget that gets its style twice: as long again as
all else that such a change does.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey


class KeyFooter(Footer):
    """Textual's footer in its compact form, without the key of the palette."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)
        self._shown: list[tuple[Binding, bool, str]] | None = None

    def compose(self) -> ComposeResult:
        if self._bindings_ready:
            self._shown = self._wanted()
        for each in super().compose():
            if isinstance(each, FooterKey):
                each.add_class("-compact", update=False)  # its own property would, with a second look for its style
            yield each

    def bindings_changed(self, screen: Screen[object]) -> None:
        if not self.is_attached or self._shown != self._wanted():
            super().bindings_changed(screen)

    async def recompose(self) -> None:
        """Make it anew, unless that was done since it was asked for: several changes may come before one refresh."""
        if not self.is_attached or self._shown != self._wanted():
            await super().recompose()

    def _wanted(self) -> list[tuple[Binding, bool, str]]:
        """What is to be shown: each key with whether it works now and its tooltip."""
        active = self.screen.active_bindings.values()
        return [(each.binding, each.enabled, each.tooltip) for each in active if each.binding.show]
