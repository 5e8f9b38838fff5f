"""The samples of a project as a table of stills: prompts by steps, or prompts by LoRAs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from tui.colours import few_colours
from tui.data.clips import Pixels, small_still
from tui.data.sample_matrix import Place, SampleMatrix
from tui.data.samples import Sample
from tui.widgets.half_blocks import half_blocks
from tui.widgets.rows import cell, cut_inside
from tui.widgets.sample_list import standing_word

KEPT = 400
"""Stills that are remembered."""
WORDS_WIDTH, NARROW_WIDTH, WIDE_WIDTH = 13, 15, 20
"""Columns of a cell: without pictures; with them in a narrow terminal, and in a wide one."""
NOT_YET, WAITING, AT_WORK, NOTHING = "not yet", "waiting", "at work …", "·"


class SampleTable(Widget, can_focus=True):
    """Only the cells in sight are drawn, and their stills read in a thread: 200 prompts cost as little as two."""

    PART_NAME = "Samples"
    HELP = """One row for each prompt; the columns are the steps of the training, or the LoRAs. A cell shows a still of
    its newest sample: "+2" means that it has two more (comma and full stop go through them), "not yet" that the config
    asks for it, "waiting" that this run will make it, "at work" that it is being made. Arrows move, enter opens and
    plays, b keeps a cell as B to compare, w shows words instead of pictures."""
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "samples--title",
        "samples--here",
        "samples--cursor",
        "samples--cursor-blurred",
        "samples--faint",
    }
    DEFAULT_CSS = """
    SampleTable {
        background: $background; color: $foreground; height: 1fr;
        & > .samples--title { color: $foreground; }
        & > .samples--here { color: $accent; text-style: bold; }
        & > .samples--faint { color: $faint; }
        & > .samples--cursor {
            background: $block-cursor-background; color: $block-cursor-foreground; text-style: bold;
        }
        & > .samples--cursor-blurred {
            background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", id="grid-up", show=False, tooltip="the prompt above"),
        Binding("down,j", "move(1, 0)", "Down", id="grid-down", show=False, tooltip="the prompt below"),
        Binding("left,h", "move(0, -1)", "Left", id="grid-left", show=False, tooltip="the column before"),
        Binding("right,l", "move(0, 1)", "Right", id="grid-right", show=False, tooltip="the next column"),
        Binding("pageup", "page(-1)", "Page up", id="grid-page-up", show=False, tooltip="one page up"),
        Binding("pagedown", "page(1)", "Page down", id="grid-page-down", show=False, tooltip="one page down"),
        Binding("home", "edge(0)", "First", id="grid-first", show=False, tooltip="the first prompt"),
        Binding("end", "edge(-1)", "Last", id="grid-last", show=False, tooltip="the last prompt"),
        Binding("comma", "other(-1)", "Newer", id="grid-newer", show=False, tooltip="a newer sample of this cell"),
        Binding("full_stop", "other(1)", "Older", id="grid-older", show=False, tooltip="an older sample of this cell"),
        Binding("enter", "choose", "Open", id="grid-open", tooltip="open and play it"),
        Binding("w", "pictures", "Words", id="grid-words", show=False, tooltip="words instead of pictures, and back"),
    ]

    place: reactive[Place] = reactive((0, 0))
    """Row and column of the cursor."""

    @dataclass
    class Moved(Message):
        """Another sample is under the cursor, or none."""

        sample: Sample | None

    @dataclass
    class Opened(Message):
        """A sample was opened."""

        sample: Sample

    def __init__(
        self,
        read: Callable[[Path, int, int], Pixels] = small_still,
        *,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.grid = SampleMatrix()
        self.pinned: Path | None = None
        """The sample that is kept as B."""
        self.at_work: frozenset[str] = frozenset()
        """The names of the samples that are being made."""
        self.waiting: frozenset[str] = frozenset()
        """Those that the run will make."""
        self.empty = "no samples yet"
        self.pictures = True
        self._read = read
        self._number = 0
        """Which of the cell's samples is shown."""
        self._top = self._left = 0
        self._strips: OrderedDict[Hashable, list[Strip] | None] = OrderedDict()
        self._wanted: dict[Hashable, Path] = {}

    # What is shown

    def show(self, grid: SampleMatrix) -> None:
        """Show another table. The cursor stays on its sample, else on the same titles."""
        here = self.sample
        row, column = self.place
        titles = (_title(self.grid.rows, row), _title(self.grid.columns, column))
        self.grid = grid
        found = grid.place_of(here.path) if here is not None else None
        if found is not None:
            (row, column), self._number = found
        else:
            row = grid.rows.index(titles[0]) if titles[0] in grid.rows else row
            column = grid.columns.index(titles[1]) if titles[1] in grid.columns else column
            self._number = 0
        self.set_reactive(SampleTable.place, self.validate_place((row, column)))
        self._follow()
        if self.sample != here:
            self.post_message(self.Moved(self.sample))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of the cell under the cursor."""
        return self.grid.cells.get(self.place, ())

    @property
    def sample(self) -> Sample | None:
        """The sample that is shown there."""
        samples = self.samples
        return samples[min(self._number, len(samples) - 1)] if samples else None

    def go_to(self, path: Path) -> bool:
        """Put the cursor on a sample; False if it is not in the table."""
        found = self.grid.place_of(path)
        if found is None:
            return False
        place, number = found
        before = self.sample
        self.place, self._number = place, number
        if self.sample != before:
            self.post_message(self.Moved(self.sample))
        self.refresh()
        return True

    def validate_place(self, place: Place) -> Place:
        row, column = place
        return (
            max(0, min(row, len(self.grid.rows) - 1)),
            max(0, min(column, len(self.grid.columns) - 1)),
        )

    def watch_place(self, before: Place, after: Place) -> None:
        if before != after:
            self._number = 0
            self._follow()
            self.post_message(self.Moved(self.sample))

    def action_move(self, rows: int, columns: int) -> None:
        self.place = self.place[0] + rows, self.place[1] + columns

    def action_page(self, count: int) -> None:
        self.place = self.place[0] + count * self._rows_in_sight, self.place[1]

    def action_edge(self, row: int) -> None:
        self.place = row if row >= 0 else len(self.grid.rows) + row, self.place[1]

    def action_other(self, count: int) -> None:
        if len(self.samples) > 1:
            self._number = (min(self._number, len(self.samples) - 1) + count) % len(self.samples)
            self.post_message(self.Moved(self.sample))
            self.refresh()

    def action_choose(self) -> None:
        if self.sample is not None:
            self.post_message(self.Opened(self.sample))

    def action_pictures(self) -> None:
        self.pictures = not self.pictures
        self._follow()

    # Where it is shown

    @property
    def _with_pictures(self) -> bool:
        return self.pictures and not few_colours(self.app) and self.size.height >= 6

    @property
    def _cell_width(self) -> int:
        if not self._with_pictures:  # as wide as the titles, where all columns fit
            columns = self.grid.columns
            room = (self.size.width - self._wanted_title) // max(1, len(columns)) - 1
            return max(WORDS_WIDTH, min(room, max(map(cell_len, columns), default=0)))
        return WIDE_WIDTH if self.size.width >= 110 else NARROW_WIDTH

    @property
    def _picture_rows(self) -> int:
        """Lines of a picture: what a wide one needs, and more if that fills the height."""
        if not self._with_pictures:
            return 0
        needed, height = round(self._cell_width * 5 / 16), self.size.height - 1
        return max(needed, min(needed + 2, height // max(1, height // (needed + 1)) - 1))

    @property
    def _wanted_title(self) -> int:
        longest = max(map(cell_len, self.grid.rows), default=0)
        return max(6, min(longest, self.size.width // 4, 28))

    @property
    def _title_width(self) -> int:
        wanted, column = self._wanted_title, self._cell_width + 1
        fitting, spare = divmod(self.size.width - wanted, column)
        missing = column - spare
        shorter = fitting < len(self.grid.columns) and missing <= wanted // 4  # if one more column fits then
        return wanted - missing if shorter else wanted

    @property
    def _rows_in_sight(self) -> int:
        return max(1, (self.size.height - 1) // (self._picture_rows + 1))

    @property
    def _columns_in_sight(self) -> int:
        return max(1, (self.size.width - self._title_width) // (self._cell_width + 1))

    def on_resize(self) -> None:
        self._follow()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        row = self._top + (event.y - self.gutter.top - 1) // (self._picture_rows + 1)
        column = self._left + (event.x - self.gutter.left - self._title_width - 1) // (self._cell_width + 1)
        place = row, column
        if event.y > self.gutter.top and place == self.validate_place(place):
            again = place == self.place
            self.place = place
            if event.chain == 2 and again:
                self.action_choose()

    def on_mouse_scroll_down(self) -> None:
        self.action_move(1, 0)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-1, 0)

    def _follow(self) -> None:
        """Keep the cursor in sight, and say where it is."""
        row, column = self.place
        rows, columns = self._rows_in_sight, self._columns_in_sight
        self._top = max(0, min(max(self._top, row - rows + 1), row, len(self.grid.rows) - rows))
        self._left = max(0, min(max(self._left, column - columns + 1), column, len(self.grid.columns) - columns))
        parts = [f"prompt {row + 1}/{len(self.grid.rows)}"] if len(self.grid.rows) > rows else []
        parts += [f"column {column + 1}/{len(self.grid.columns)}"] if len(self.grid.columns) > columns else []
        self.border_subtitle = Content(" · ".join(parts))
        self.refresh()

    # Drawing

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        if not self.grid.rows:
            lines = Content(self.empty).wrap(max(1, width))
            text = lines[y].plain if y < len(lines) else ""
            return self._words(text, width, "samples--faint")
        if y == 0:
            return self._header(width)
        row, line = divmod(y - 1, self._picture_rows + 1)
        row += self._top
        if row >= len(self.grid.rows) or row >= self._top + self._rows_in_sight:
            return Strip.blank(width, base)
        here = row == self.place[0]
        title = self.grid.rows[row] if line == 0 else ""
        title, style = cut_inside(title, self._title_width), "samples--here" if here else "samples--title"
        strips = [self._words(title, self._title_width, style)]
        for column in range(self._left, min(self._left + self._columns_in_sight, len(self.grid.columns))):
            strips += [Strip.blank(1, base), self._cell_line((row, column), line)]
        return Strip.join(strips).adjust_cell_length(width, base)

    def _header(self, width: int) -> Strip:
        base = self.rich_style
        strips = [Strip.blank(self._title_width, base)]
        for column in range(self._left, min(self._left + self._columns_in_sight, len(self.grid.columns))):
            style = "samples--here" if column == self.place[1] else "samples--faint"
            title = cut_inside(self.grid.columns[column], self._cell_width)
            strips += [Strip.blank(1, base), self._words(title, self._cell_width, style)]
        return Strip.join(strips).adjust_cell_length(width, base)

    def _cell_line(self, place: Place, line: int) -> Strip:
        samples = self.grid.cells.get(place, ())
        pinned = (number for number, each in enumerate(samples) if each.path == self.pinned)
        at = min(self._number, len(samples) - 1) if place == self.place else next(pinned, 0)
        sample = samples[at] if samples else None
        if line == self._picture_rows:
            return self._caption(place, sample, at, len(samples))
        return self._picture_line(place, sample, line)

    def _caption(self, place: Place, sample: Sample | None, at: int, count: int) -> Strip:
        here = place == self.place
        if sample is None:
            words = "" if self._with_pictures else self._absent(place)
        else:
            letter = "B " if sample.path == self.pinned else ""
            more = f"{at + 1}/{count}" if here and count > 1 else f"+{count - 1}" if count > 1 else ""
            seed = "" if sample.settings.seed is None else f"seed {sample.settings.seed}"
            state = "" if self._with_pictures else "✓"
            words = letter + " ".join(filter(None, (state, standing_word(sample) or seed, more)))
        style = "samples--faint"
        if here:
            words, style = f"▸{words}", "samples--cursor" if self.has_focus else "samples--cursor-blurred"
        return self._words(words, self._cell_width, style)

    def _absent(self, place: Place) -> str:
        """Why there is no sample in a cell."""
        name = self.grid.asked.get(place)
        if name is None:
            return NOTHING
        return AT_WORK if name in self.at_work else WAITING if name in self.waiting else NOT_YET

    def _picture_line(self, place: Place, sample: Sample | None, line: int) -> Strip:
        width, rows, base = self._cell_width, self._picture_rows, self.rich_style
        if sample is None:
            return self._words(self._absent(place).center(width) if line == rows // 2 else "", width, "samples--faint")
        key = sample.path, sample.mtime, sample.size, width, rows
        if key not in self._strips:
            if not self._wanted:
                self.call_later(self._fetch)
            self._wanted[key] = sample.path
            return Strip.blank(width, base)
        self._strips.move_to_end(key)
        lines = self._strips[key]
        if lines is None:
            return self._words("no picture".center(width) if line == rows // 2 else "", width, "samples--faint")
        at = line - (rows - len(lines)) // 2
        if not 0 <= at < len(lines):
            return Strip.blank(width, base)
        left = Strip.blank(max(0, (width - lines[at].cell_length) // 2), base)
        return Strip.join([left, lines[at]]).adjust_cell_length(width, base)

    def _words(self, text: str, width: int, component: str) -> Strip:
        style = self.rich_style + self.get_component_rich_style(component, partial=True)
        return Strip([Segment(cell(text, width).plain, style)]).adjust_cell_length(width, style)

    def _fetch(self) -> None:
        wanted, size = dict(self._wanted), (self._cell_width, 2 * self._picture_rows)
        self._wanted.clear()

        async def work() -> None:
            for key, path in wanted.items():
                self._strips[key] = await asyncio.to_thread(self._drawn, path, *size)
                while len(self._strips) > KEPT:
                    self._strips.popitem(last=False)
                self.refresh()

        self.run_worker(work(), group="stills", exclusive=True, exit_on_error=False)

    def _drawn(self, path: Path, width: int, height: int) -> list[Strip] | None:
        try:
            return half_blocks(self._read(path, width, height))
        except Exception:  # the player says what is wrong with the file
            return None


def _title(titles: tuple[str, ...], number: int) -> str | None:
    return titles[number] if number < len(titles) else None
