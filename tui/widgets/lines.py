"""What widgets of many lines have in common, which draw only those that are seen."""

from __future__ import annotations

from textual.scroll_view import ScrollView


class Lines(ScrollView, can_focus=False):
    """Lines that are scrolled. Its scrollbar is right at once when it appears after something was scrolled to.

    Textual moves a scrollbar along only while it is shown; a new one would stand at its start until the next scrolling.
    """

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        if shown:
            self.vertical_scrollbar.position = self.scroll_y
