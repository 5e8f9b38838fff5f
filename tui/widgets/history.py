"""A value over the last minutes, as a filled area under its limit, with its peak marked. Drawn in a millisecond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from tui.units import duration

LEVELS = " ▁▂▃▄▅▆▇█"
LABELS = 9
"""Columns for the numbers on the left."""
SHORTEST_S = 120.0
"""The shortest time that the whole width represents."""


class History(Widget):
    """Redrawn when `show` is called; the highest value of each column's time is drawn."""

    COMPONENT_CLASSES = {"history--area", "history--peak", "history--label"}  # noqa: RUF012 (as Textual declares it)
    DEFAULT_CSS = """
    History {
        height: 1fr; min-height: 4; background: $background;
        & > .history--area { color: $primary 70%; }
        & > .history--peak { color: $accent; }
        & > .history--label { color: $faint; }
    }
    """

    def __init__(self, words: Callable[[float], str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._words = words
        self.times: Sequence[float] = ()
        self.values: Sequence[float] = ()
        self.limit = 0.0
        self.peak = 0.0
        self.empty = "no measurements yet"

    def show(self, times: Sequence[float], values: Sequence[float], *, limit: float, peak: float = 0.0) -> None:
        """Draw values by their times (seconds, ascending); `limit` is the value at the top.

        The peak may be higher than what is drawn: it may be older, or too short to be measured.
        """
        self.times, self.values = times, values
        self.peak = max([peak, *values]) if values else peak
        self.limit = max(limit, self.peak, 1e-9)
        self.refresh()

    def columns(self, width: int) -> list[float | None]:
        """The highest value in each column's time; None where nothing was measured."""
        found: list[float | None] = [None] * width
        if not self.times:
            return found
        end = self.times[-1]
        span = max(SHORTEST_S, end - self.times[0])
        for time, value in zip(self.times, self.values, strict=False):
            column = min(width - 1, int((time - (end - span)) / span * width))
            if column >= 0:
                found[column] = max(value, found[column] or 0.0)
        return _filled(found, width * 15.0 / span)

    def render_line(self, y: int) -> Strip:
        width, rows = self.size.width, self.size.height - 1
        base = self.rich_style
        label = base + self.get_component_rich_style("history--label", partial=True)
        graph = max(1, width - LABELS)
        if not self.values:
            return Strip([Segment(self.empty if y == 0 else "", label)]).adjust_cell_length(width, base)
        if y >= rows:
            span = max(SHORTEST_S, self.times[-1] - self.times[0])
            text = f"{'':{LABELS}}{duration(span)} ago".ljust(width - 3) + "now"
            return Strip([Segment(text, label)]).adjust_cell_length(width, base)
        area = base + self.get_component_rich_style("history--area", partial=True)
        mark = base + self.get_component_rich_style("history--peak", partial=True)
        peak_row = rows - max(1, math.ceil(self.peak / self.limit * rows))
        name = self._words(self.limit) if y == 0 else "peak" if y == peak_row else "0" if y == rows - 1 else ""
        segments = [Segment(f"{name:>{LABELS - 1}} ", mark if y == peak_row and y else label)]
        for value in self.columns(graph):
            filled = 0.0 if value is None else value / self.limit * rows * 8 - (rows - 1 - y) * 8
            level = max(0, min(8, round(filled)))
            if level == 0 and value and y == rows - 1:
                level = 1
            segments.append(Segment("╌", mark) if level == 0 and y == peak_row else Segment(LEVELS[level], area))
        return Strip(segments).simplify().adjust_cell_length(width, base)


def _filled(values: list[float | None], reach: float) -> list[float | None]:
    """Bridge columns between two measurements that are no further apart than `reach` columns."""
    filled, last = list(values), -1
    for column, value in enumerate(values):
        if value is None:
            continue
        if last >= 0 and column - last <= max(1.0, reach):
            filled[last + 1 : column] = [values[last]] * (column - last - 1)
        last = column
    return filled
