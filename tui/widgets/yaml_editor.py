"""The file itself, with its comments in another colour and a mark in each line that has a problem."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from hv15.terminal_text import visible
from tui.data.yaml_lines import with_line_ends

KEY = re.compile(r"^(\s*(?:- )*)([\w.\"'-]+)(:)(?=\s|$)")
COMMENT = re.compile(r"(?:^|\s)(#.*)$")


class YamlEditor(TextArea):
    """Plain text that is checked while it is typed; undo and redo are those of the whole screen."""

    PART_NAME = "Text of the config"
    HELP = """config.yaml as it is. It is checked while you type; a line with a problem is marked, and the problem
    is listed below. ctrl+s saves, ctrl+e opens $EDITOR, ctrl+z undoes, also what the form did."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"yaml--key", "yaml--comment", "yaml--problem", "yaml--changed"}

    DEFAULT_CSS = """
    YamlEditor {
        border: none; background: $background; padding: 0;
        & > .yaml--key { color: $primary; }
        & > .yaml--comment { color: $faint; text-style: italic; }
        & > .yaml--problem { color: $error; text-style: bold underline; }
        & > .yaml--changed { background: $panel; }
        &:focus { border: none; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        # In Textual's editor, esc goes to the next widget, which does not help if the editor fills the screen.
        Binding("escape", "screen.leave_field", "Form", id="yaml-leave", priority=True, tooltip="back to the form"),
        Binding(
            "ctrl+z",
            "screen.undo",
            "Undo",
            id="yaml-undo",
            show=False,
            priority=True,
            tooltip="take back the last edit",
        ),
        Binding("ctrl+y", "screen.redo", "Redo", id="yaml-redo", show=False, priority=True, tooltip="do it again"),
        Binding("ctrl+e", "screen.editor", "$EDITOR", id="yaml-editor", show=False, tooltip="open the file in $EDITOR"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, show_line_numbers=True, soft_wrap=False, tab_behavior="indent", compact=True)
        self.indent_type, self.indent_width = "spaces", 2
        self._loaded = self._said = ""
        """The text that was loaded, and the editor's version of it."""
        self.problem_lines: frozenset[int] = frozenset()
        self.changed_lines: frozenset[int] = frozenset()

    def mark(self, problems: frozenset[int], changed: frozenset[int] = frozenset()) -> None:
        """Mark lines (from 1) with a problem, and lines that are not saved."""
        if (problems, changed) != (self.problem_lines, self.changed_lines):
            self.problem_lines, self.changed_lines = problems, changed
            self._line_cache.clear()
            self.refresh()

    def get_line(self, line_index: int) -> Text:
        text = super().get_line(line_index)
        text.plain = visible(text.plain)
        if line_index + 1 in self.problem_lines:
            text.stylize(self._style_of("yaml--problem"))
            return text
        if found := KEY.match(text.plain):
            text.stylize(self._style_of("yaml--key"), *found.span(2))
        if found := COMMENT.search(text.plain):
            text.stylize(self._style_of("yaml--comment"), *found.span(1))
        return text

    def _style_of(self, component: str) -> Style:
        return self.get_component_rich_style(component, partial=True)

    @property
    def exact_text(self) -> str:
        """The text with the original line ends of all lines that are still there: Textual knows only one kind."""
        if self.text == self._said:
            return self._loaded
        if self._said == self._loaded:
            return self.text
        return with_line_ends(self._loaded, self.document.lines, self.document.newline)

    def load_text(self, text: str) -> None:
        super().load_text(text)
        self._loaded, self._said = text, self.text

    def load(self, text: str) -> None:
        """Show a text that was changed elsewhere; the cursor stays where it was, if that place still exists."""
        if text != self.exact_text:
            place, scroll = self.cursor_location, self.scroll_offset
            self.load_text(text)
            self.move_cursor(self.document.end if place > self.document.end else place)
            self.scroll_to(scroll.x, scroll.y, animate=False)

    def go_to(self, line: int, column: int = 1, *, focus: bool = False) -> None:
        """Put the cursor on a place, counted from 1."""
        self.move_cursor((max(0, line - 1), max(0, column - 1)), center=True)
        if focus:
            self.focus()
