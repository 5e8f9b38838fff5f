"""A list of any length: only the visible lines are drawn, so that 10,000 rows cost as little as ten."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from hv15.terminal_text import visible
from tui.colours import few_colours
from tui.widgets.lines import Lines

Row = TypeVar("Row")


class Rows(Lines, Generic[Row], can_focus=True):
    """One line for each row. A subclass draws a row, identifies it by `key`, and may have a `header`.

    The cursor stays on its row when the rows change, as long as the row is there.
    """

    stays_on_top: ClassVar[bool] = False
    """Whether the cursor stays on the first row, whichever that is, until a person moves it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor", "rows--cursor-blurred", "rows--header"}

    DEFAULT_CSS = """
    Rows {
        background: $background; color: $foreground; height: 1fr;
        & > .rows--cursor { background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold; }
        & > .rows--cursor-blurred {
            background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground;
        }
        & > .rows--header { color: $faint; text-style: underline; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", id="rows-up", show=False, tooltip="one row up"),
        Binding("down,j", "move(1)", "Down", id="rows-down", show=False, tooltip="one row down"),
        Binding("pageup", "page(-1)", "Page up", id="rows-page-up", show=False, tooltip="one page up"),
        Binding("pagedown", "page(1)", "Page down", id="rows-page-down", show=False, tooltip="one page down"),
        Binding("home,g", "move_to(0)", "First", id="rows-first", show=False, tooltip="the first row"),
        Binding("end,G", "move_to(-1)", "Last", id="rows-last", show=False, tooltip="the last row"),
        Binding("enter", "choose", "Open", id="rows-choose", show=False, tooltip="open this row"),
    ]

    cursor: reactive[int] = reactive(0)
    empty: reactive[str] = reactive("nothing here")
    """The text when there are no rows."""

    @dataclass
    class Moved(Message):
        """The cursor is on another row."""

        rows: Widget
        row: object

        @property
        def control(self) -> Widget:
            return self.rows

    @dataclass
    class Chosen(Message):
        """A row was opened, by enter or by a second click."""

        rows: Widget
        row: object

        @property
        def control(self) -> Widget:
            return self.rows

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.rows: Sequence[Row] = ()
        self.held = False
        """Whether a person has put the cursor where it is."""

    # What a subclass defines

    def draw(self, row: Row, width: int) -> Content:
        """Return a row's line; what is too long is cut off."""
        return Content(str(row))

    def key(self, row: Row) -> Hashable:
        """Return what identifies a row when the rows are replaced."""
        return row

    def header(self, width: int) -> Content | None:
        """Return a line that stays above the rows."""
        return None

    # Rows and cursor

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these rows from now on."""
        kept = self.key(self.current) if self.current is not None else None
        self.rows = rows
        cursor = self.cursor
        if self.stays_on_top and not self.held:
            cursor = 0
        elif kept is not None and not (cursor < len(rows) and self.key(rows[cursor]) == kept):
            cursor = next((index for index, row in enumerate(rows) if self.key(row) == kept), cursor)
        moved = cursor != self.cursor
        self.set_reactive(Rows.cursor, max(0, min(cursor, len(rows) - 1)))
        self._resize_content()
        if moved:
            self._show_cursor()
        self.refresh()
        if self.current is not None and self.key(self.current) != kept:
            self.post_message(self.Moved(self, self.current))

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    def move_to_key(self, key: Hashable) -> bool:
        """Put the cursor on the row of this key; False when there is none."""
        for index, row in enumerate(self.rows):
            if self.key(row) == key:
                self.cursor = index
                return True
        return False

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, len(self.rows) - 1))

    def watch_cursor(self, before: int, after: int) -> None:
        if before != after:
            self._show_cursor()
            self.refresh()
            if self.current is not None:
                self.post_message(self.Moved(self, self.current))

    def action_move(self, count: int) -> None:
        self.held = True
        self.cursor += count

    def action_page(self, count: int) -> None:
        self.held = True
        self.cursor += count * max(1, self._visible_rows - 1)

    def action_move_to(self, index: int) -> None:
        self.held = index != 0
        self.cursor = index if index >= 0 else len(self.rows) + index

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self, self.current))

    def on_click(self, event: events.Click) -> None:
        index = event.y - self.gutter.top - self._header_rows + self.scroll_offset.y
        if event.y - self.gutter.top < self._header_rows or not 0 <= index < len(self.rows):
            return
        again, self.held = index == self.cursor, True
        self.cursor = index
        if event.chain == 2 or (again and event.chain == 1 and self.choose_by_click):
            self.action_choose()

    choose_by_click: ClassVar[bool] = False
    """Whether one click on the row under the cursor opens it."""

    # Drawing

    @property
    def _header_rows(self) -> int:
        return 1 if self.header(1) is not None else 0

    @property
    def _visible_rows(self) -> int:
        return max(1, self.scrollable_content_region.height - self._header_rows)

    def on_resize(self) -> None:
        self._resize_content()
        self._show_cursor()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def watch_empty(self) -> None:
        self.refresh()

    def _resize_content(self) -> None:
        self.virtual_size = Size(0, len(self.rows) + self._header_rows)

    def _show_cursor(self) -> None:
        if self.is_attached:
            region = Region(0, self.cursor, 1, 1 + self._header_rows)
            self.scroll_to_region(region, animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        header = self.header(width)
        if header is not None:
            if y == 0:
                return self._strip(header, width, "rows--header")
            y -= 1
        index = self.scroll_offset.y + y
        if not self.rows and y == 0:
            return self._strip(Content.styled(self.empty, "$faint"), width)
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        content = self.draw(self.rows[index], width)
        if index == self.cursor:
            if few_colours(self.app):
                content = Content(content.plain)  # its own colours suit the background of the other rows
            return self._strip(content, width, "rows--cursor" if self.has_focus else "rows--cursor-blurred")
        return self._strip(content, width)

    def _strip(self, content: Content, width: int, component: str | None = None) -> Strip:
        style = self.get_visual_style(component) if component else self.visual_style
        pieces = content.first_line.truncate(width, ellipsis=True).render(style, end="", parse_style=self._get_style)
        strip = Strip([Segment(text, each.rich_style) for text, each in pieces])
        return strip.adjust_cell_length(width, style.rich_style)


def cut_inside(text: str, width: int) -> str:
    """Return one line of text in at most `width` columns: cut in its middle, for names whose ends tell them apart."""
    if cell_len(text) <= width:
        return text
    head, tail = width // 2, width - width // 2 - 1
    return f"{set_cell_size(text, head)}…{set_cell_size(text[::-1], tail)[::-1]}"


def cell(text: str, width: int, style: str = "", *, right: bool = False) -> Content:
    """Return one line of plain text in exactly `width` columns, cut with an ellipsis, in a style of the theme.

    Whatever the text holds, a terminal obeys nothing in it: see `visible`.
    """
    content = Content(re.sub(r"[\n\t]", " ", visible(text))).truncate(width, ellipsis=True)
    space = " " * (width - content.cell_length)
    padded = Content(space) + content if right else content + Content(space)
    return padded.stylize(style) if style else padded
