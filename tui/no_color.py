"""NO_COLOR: everything in shades of grey. Textual's own filter fails on text without a style, such as a plot's."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter, Monochrome

PLAIN = Style()


class Grey(Monochrome):
    """Takes the colours out of each piece of text, styled or not."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return super().apply([Segment(text, style or PLAIN, control) for text, style, control in segments], background)


def tolerant(filters: list[LineFilter]) -> list[LineFilter]:
    """Return an app's filters with `Grey` in place of Textual's."""
    return [Grey() if isinstance(each, Monochrome) else each for each in filters]
