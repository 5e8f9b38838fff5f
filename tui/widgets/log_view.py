"""A log of any size: only the visible lines are read, in a thread, and drawn."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.reactive import reactive
from textual.strip import Strip

from hv15.patterns import PatternError
from tui.data.log_blocks import BLOCK, Block, LogState, read_block, read_state
from tui.data.log_file import LogFile, LogFilter
from tui.data.patterns import SearchPattern, search_pattern
from tui.units import size
from tui.widgets.lines import Lines

BLOCKS_KEPT = 40
LOOK_S = 0.5
"""How often a file is checked for new lines."""
SHIFT = 8
"""How many columns an arrow key moves sideways."""
ALARMING = re.compile(r"\b(error|exception|traceback|failed|critical)\b|\bnan\b", re.IGNORECASE)
WORRYING = re.compile(r"\b(warning|warn|hint)\b", re.IGNORECASE)


class LogView(Lines, can_focus=True):
    """Follows the end of a log until somebody scrolls away from it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--number", "log--match", "log--hit", "log--alarming", "log--worrying",
    }  # fmt: skip
    DEFAULT_CSS = """
    LogView {
        background: $background; color: $foreground; height: 1fr; overflow-x: hidden;
        & > .log--number { color: $faint; }
        & > .log--match { background: $accent 40%; text-style: bold; }
        & > .log--hit { background: $block-cursor-background; color: $block-cursor-foreground; }
        & > .log--alarming { color: $error; }
        & > .log--worrying { color: $warning; }
    }
    """
    PART_NAME = "Log"
    HELP = """A log. f follows its end; / searches (n next, N previous), & shows only matching lines, esc shows all
    again. Patterns are regular expressions; lower case matches upper case too. left and right move sideways."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow", id="log-follow", tooltip="stay at the end as the log grows"),
        Binding("n", "search(1)", "Next", id="log-next", tooltip="the next match"),
        Binding("N,shift+n", "search(-1)", "Before", id="log-before", show=False, tooltip="the match before"),
        Binding("left", "shift(-1)", "Left", id="log-left", show=False, tooltip="sideways, to the start of lines"),
        Binding("right", "shift(1)", "Right", id="log-right", show=False, tooltip="sideways, to the end of lines"),
        Binding("g,home", "first", "Start", id="log-start", show=False, tooltip="the first line"),
        Binding("G,end", "last", "End", id="log-end", show=False, tooltip="the last line, and follow"),
        Binding("k", "scroll_up", "Up", id="log-up", show=False, tooltip="one line up"),
        Binding("j", "scroll_down", "Down", id="log-down", show=False, tooltip="one line down"),
    ]

    follow: reactive[bool] = reactive(True)

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.path: Path | None = None
        self.empty = "no log chosen"
        self.note = ""
        """The result of the last search or filter."""
        self._log: LogFile | None = None
        self._filter: LogFilter | None = None
        self._log_state = LogState(0, 0, 0, True, "")
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._wanted: set[int] = set()
        self._pattern: SearchPattern | None = None
        self._search_text = ""
        self._hit: int | None = None
        self._shift = 0
        self._cancel = threading.Event()
        self._reading = threading.Lock()

    # What is shown

    def open(self, path: Path | None) -> None:
        """Show a file from its end; one that does not exist yet is waited for."""
        if path == self.path:
            return
        self.path, self._log = path, LogFile(path) if path is not None else None
        self._filter, self._hit, self.note, self._shift = None, None, "", 0
        self._forget()
        self._log_state = LogState(0, 0, 0, path is None, "")
        self.follow = True
        self._resize_content()
        if self._log is not None:
            self.run_worker(self._watch(self._log), group="watch", exclusive=True, exit_on_error=False)

    def filter_by(self, text: str) -> None:
        """Show only the lines that match; "" shows all."""
        if self._log is None:
            return
        top = self._number_at(int(self.scroll_offset.y))
        self._set_pattern(text)
        self._filter = LogFilter(self._log, text) if text else None
        self._forget()
        self._describe()
        self._resize_content()
        if self._filter is None and not self.follow and top is not None:
            self.call_after_refresh(self.scroll_to, y=top, animate=False)
        self.run_worker(self._watch(self._log), group="watch", exclusive=True, exit_on_error=False)

    @property
    def filtered(self) -> bool:
        """Whether only matching lines are shown."""
        return self._filter is not None

    def search(self, text: str) -> None:
        """Go to the next match of a pattern, starting from the first line that is shown."""
        self._set_pattern(text)
        self._search_text, self._hit = text, None
        self.refresh()
        if text:
            self.action_search(1)

    def action_search(self, direction: int) -> None:
        log, text = self._log, self._search_text
        if log is None or not text:
            self.note = "no search yet: / asks what to search for"
            self._describe()
            return
        if self.filtered:
            self.filter_by("")
            self._set_pattern(text)
        start = (self._hit + direction) if self._hit is not None else max(0, int(self.scroll_offset.y))
        self._cancel.set()
        cancel = self._cancel = threading.Event()
        self.note = "searching"
        self._describe()

        async def work() -> None:
            try:
                found = await asyncio.to_thread(log.search, text, start, backwards=direction < 0, cancel=cancel)
            except PatternError as error:
                found, why = None, str(error)
            else:
                why = ""
            if not cancel.is_set():
                self._found(found, direction, why)

        self.run_worker(work(), group="search", exclusive=True, exit_on_error=False)

    def _found(self, line: int | None, direction: int, why: str) -> None:
        if why:
            self.note, self._pattern = why, None
        elif line is None:
            self.note = f"no match {'below' if direction > 0 else 'above'}: {self._search_text}"
        else:
            self.note, self._hit, self.follow = f"match in line {line + 1:,}", line, False
            self.scroll_to(y=max(0, line - self.size.height // 3), animate=False, force=True)
        self._describe()
        self.refresh()

    def action_follow(self) -> None:
        self.follow = not self.follow

    def action_first(self) -> None:
        self.follow = False
        self.scroll_to(y=0, animate=False)

    def action_last(self) -> None:
        self.follow = True

    def action_shift(self, direction: int) -> None:
        self._shift = max(0, self._shift + direction * SHIFT)
        self.refresh()

    def watch_follow(self) -> None:
        if self.follow and self.is_attached:
            self.scroll_end(animate=False, force=True)
        self._describe()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value < self.max_scroll_y:
            self.set_reactive(LogView.follow, False)
        elif self.max_scroll_y and new_value >= self.max_scroll_y:
            self.set_reactive(LogView.follow, True)
        self._describe()

    def _set_pattern(self, text: str) -> None:
        self._pattern = search_pattern(text) if text else None
        self.note = self._pattern.note if self._pattern is not None else ""

    # Reading, always in a thread

    async def _watch(self, log: LogFile) -> None:
        """Read the file again and again while it is shown."""
        while self._log is log:
            if self.screen not in self.app.screen_stack[:1]:  # another mode is shown, or the app is being closed
                await asyncio.sleep(LOOK_S)
                continue
            before, kept = self._log_state, self._filter
            ends = self._ends(before)
            state = await asyncio.to_thread(self._read_state, log, kept, before, ends)
            if self._log is not log:
                return
            if kept is self._filter:
                self._take(state)
            await asyncio.sleep(LOOK_S if state.complete else 0.02)

    def _ends(self, state: LogState) -> int:
        """How many lines at the end are on the screen; 0 if the end is not followed."""
        return self.size.height if self.follow else 0

    def _read_state(self, log: LogFile, kept: LogFilter | None, before: LogState, ends: int) -> LogState:
        with self._reading:
            return read_state(log, kept, before, ends)

    def _take(self, state: LogState) -> None:
        before, self._log_state = self._log_state, state
        if state.generation != before.generation:
            self._forget()
            self.note = "the file was cut or replaced" if before.bytes else ""
        elif state.lines < before.lines:  # a filter was set, or the last line has grown and no longer matches
            self._forget()
        elif state.lines != before.lines:
            self._blocks.pop(before.lines // BLOCK, None)  # it was incomplete
        self._blocks.update(state.blocks)
        if state != before:
            self._resize_content()
            self._describe()
            self.refresh()

    def _forget(self) -> None:
        self._blocks.clear()
        self._wanted.clear()

    def _resize_content(self) -> None:
        count = len(self._log_state.tail) if self._log_state.tail is not None else self._count
        self.virtual_size = Size(0, count)
        if self.follow and self.is_attached:
            self.scroll_end(animate=False, force=True)

    @property
    def _count(self) -> int:
        return self._log_state.lines

    def _block_of(self, index: int) -> Block | None:
        """Return the block with a line; if it is not read yet, return None and start reading it."""
        number = index // BLOCK
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if number not in self._wanted:
            self._wanted.add(number)
            self.call_later(self._fetch)
        return None

    def _fetch(self) -> None:
        log, kept, numbers = self._log, self._filter, sorted(self._wanted)
        if log is None or not numbers:
            return

        async def work() -> None:
            read = await asyncio.to_thread(self._read_blocks, log, kept, numbers)
            if log is self._log and kept is self._filter:
                self._blocks.update(read)
                self._wanted.difference_update(numbers)
                while len(self._blocks) > BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
                self.refresh()

        self.run_worker(work(), group="fetch", exit_on_error=False)

    def _read_blocks(self, log: LogFile, kept: LogFilter | None, numbers: list[int]) -> dict[int, Block]:
        with self._reading:
            return {number: read_block(log, kept, number) for number in numbers}

    # Drawing

    def on_resize(self) -> None:
        self._resize_content()

    def on_mount(self) -> None:
        self._describe()

    def _number_at(self, index: int) -> int | None:
        """The number, in the file, of a line of the view."""
        block = self._blocks.get(index // BLOCK)
        return block[index % BLOCK][0] if block and index % BLOCK < len(block) else None

    def _describe(self) -> None:
        state = self._log_state
        if self._log is None:
            self.border_subtitle = ""
            return
        parts = [self.note] if self.note else []
        if state.error:
            parts.append(state.error)
        elif self.filtered:
            parts.append(f"{state.lines:,} lines match{'' if state.complete else ' so far'}")
        elif state.complete:
            parts.append(f"{state.lines:,} lines, {size(state.bytes)}")
        else:
            parts.append(f"{size(state.bytes)}, counting lines")
        parts.append("following" if self.follow else "f follows")
        self.border_subtitle = Content(" · ".join(parts))

    def render_line(self, y: int) -> Strip:
        width, base = self.scrollable_content_region.width, self.rich_style
        index = int(self.scroll_offset.y) + y
        state = self._log_state
        if state.tail is not None:
            if index < len(state.tail):
                return self._strip(None, state.tail[index], width, base)
            return Strip.blank(width, base)
        if index >= self._count:
            said = state.error or (self.empty if self._log is None else "nothing written yet" if state.complete else "")
            said = "no line matches" if self.filtered and state.complete and not state.error else said
            text = Content(said if y == 0 and not self._count else "").truncate(width, ellipsis=True).plain
            style = base + self.get_component_rich_style("log--number", partial=True)
            return Strip([Segment(text, style)]).adjust_cell_length(width, base)
        block = self._block_of(index)
        if block is None or index % BLOCK >= len(block):
            return Strip.blank(width, base)
        number, text = block[index % BLOCK]
        return self._strip(number, text, width, base)

    def _strip(self, number: int | None, text: str, width: int, base: Style) -> Strip:
        style = base
        if number is not None and number == self._hit:
            style += self.get_component_rich_style("log--hit", partial=True)
        if ALARMING.search(text):
            style += self.get_component_rich_style("log--alarming", partial=True)
        elif WORRYING.search(text):
            style += self.get_component_rich_style("log--worrying", partial=True)
        line = Strip(list(self._segments(text, style)))
        if self._shift:
            line = line.crop(self._shift)
        if number is None:
            return line.adjust_cell_length(width, style)
        digits = max(3, len(str(max(self._log_state.lines, number + 1))))
        faint = style + self.get_component_rich_style("log--number", partial=True)
        gutter = Strip([Segment(f"{number + 1:>{digits}} ", faint)])
        return Strip.join([gutter, line.adjust_cell_length(max(1, width - digits - 1), style)])

    def _segments(self, text: str, style: Style) -> Iterator[Segment]:
        """The text in pieces, matches of the pattern standing out."""
        text, end = text.expandtabs(8), 0
        if self._pattern is not None:
            match = style + self.get_component_rich_style("log--match", partial=True)
            for start, stop in self._pattern.spans(text):
                if stop > start:
                    yield Segment(text[end:start], style)
                    yield Segment(text[start:stop], match)
                    end = stop
        yield Segment(text[end:], style)
