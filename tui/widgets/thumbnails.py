"""A row of small pictures: the clips around the one under the cursor."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual import events
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from hv15.terminal_text import visible
from tui.data.dataset import Item, thumbnail
from tui.widgets.clip_list import item_key
from tui.widgets.half_blocks import Pixels, half_blocks

KEPT = 200


class Thumbnails(Widget):
    """Pictures are read in a thread when they become visible, and the last ones are kept."""

    COMPONENT_CLASSES = {"thumbnails--name", "thumbnails--chosen"}  # noqa: RUF012 (as Textual declares it)
    DEFAULT_CSS = """
    Thumbnails {
        height: 8; background: $background;
        & > .thumbnails--name { color: $faint; }
        & > .thumbnails--chosen {
            color: $block-cursor-foreground; background: $block-cursor-background; text-style: bold;
        }
    }
    """

    @dataclass
    class Clicked(Message):
        """A picture was clicked."""

        index: int

    def __init__(self, read: Callable[[Item, int, int], Pixels] = thumbnail, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._read = read
        self._items: Sequence[Item] = ()
        self._cursor = 0
        self._strips: OrderedDict[tuple[object, ...], list[Strip] | None] = OrderedDict()
        self._wanted: set[int] = set()

    def show(self, items: Sequence[Item], cursor: int) -> None:
        """Show the pictures around an item."""
        self._items, self._cursor = items, cursor
        self.refresh()

    @property
    def _picture(self) -> tuple[int, int]:
        """Columns and rows of one picture."""
        rows = max(1, self.size.height - 1)
        return min(max(8, 5 * rows // 2), max(8, self.size.width)), rows

    @property
    def _first(self) -> int:
        count = max(1, self.size.width // (self._picture[0] + 1))
        return max(0, min(self._cursor - count // 2, len(self._items) - count))

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        columns, rows = self._picture
        strips: list[Strip] = []
        used, index = 0, self._first
        while used + columns <= width and index < len(self._items):
            strips += [self._part(index, y, columns, rows), Strip.blank(1, base)]
            used, index = used + columns + 1, index + 1
        return Strip.join(strips).adjust_cell_length(width, base)

    def _part(self, index: int, y: int, columns: int, rows: int) -> Strip:
        item, base = self._items[index], self.rich_style
        if y >= rows:
            component = "thumbnails--chosen" if index == self._cursor else "thumbnails--name"
            style = base + self.get_component_rich_style(component, partial=True)
            text = Content(" ".join(visible(item.path.stem).split())).truncate(columns, ellipsis=True).plain
            return Strip([Segment(text, style)]).adjust_cell_length(columns, style)
        key = (item_key(item), columns, rows)
        if key not in self._strips:
            if not self._wanted:
                self.call_later(self._fetch)
            self._wanted.add(index)
            return Strip.blank(columns, base)
        lines = self._strips[key]
        line = y - (rows - len(lines)) // 2 if lines else -1
        if not lines or not 0 <= line < len(lines):
            text = "no picture".center(columns)[:columns] if lines is None and y == rows // 2 else ""
            style = base + self.get_component_rich_style("thumbnails--name", partial=True)
            return Strip([Segment(text, style)]).adjust_cell_length(columns, base)
        left = Strip.blank(max(0, (columns - lines[line].cell_length) // 2), base)
        return Strip.join([left, lines[line]]).adjust_cell_length(columns, base)

    def _fetch(self) -> None:
        columns, rows = self._picture
        items = [self._items[index] for index in sorted(self._wanted) if index < len(self._items)]
        self._wanted.clear()

        async def work() -> None:
            for item in items:
                strips = await asyncio.to_thread(self._drawn, item, columns, rows)
                self._strips[(item_key(item), columns, rows)] = strips
                while len(self._strips) > KEPT:
                    self._strips.popitem(last=False)
                self.refresh()

        self.run_worker(work(), group="thumbnails", exclusive=True, exit_on_error=False)

    def _drawn(self, item: Item, columns: int, rows: int) -> list[Strip] | None:
        try:
            return half_blocks(self._read(item, columns, 2 * rows))
        except Exception:  # the list shows what is wrong with the file
            return None

    def on_click(self, event: events.Click) -> None:
        index = self._first + event.x // (self._picture[0] + 1)
        if index < len(self._items):
            self.post_message(self.Clicked(index))
