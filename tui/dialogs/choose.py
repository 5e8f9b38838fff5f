"""Choose several entries of a list with space; enter accepts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from tui.widgets.rows import Rows


class ChoiceRows(Rows[str]):
    """Names with a box before each."""

    HELP = "Space selects or deselects a name, enter shows the selected ones."

    def __init__(self, taken: set[str], notes: Mapping[str, str]) -> None:
        super().__init__(id="choices")
        self.taken, self.notes = taken, notes

    def key(self, row: str) -> Hashable:
        return row

    def draw(self, row: str, width: int) -> Content:
        box, note = "[x] " if row in self.taken else "[ ] ", self.notes.get(row, "")
        return Content.assemble((box, "bold $accent"), row, (f"  {note}" if note else "", "$faint"))


class ChooseDialog(ModalScreen[list[str] | None]):
    """Returns the selected names, in their order, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", id="choose-cancel", tooltip="change nothing"),
        Binding("space", "take", "Take", id="choose-take", tooltip="select or deselect this one"),
    ]

    DEFAULT_CSS = """
    ChooseDialog ChoiceRows { height: auto; max-height: 20; min-height: 3; background: $surface; }
    """

    def __init__(
        self, title: str, names: Iterable[str], taken: Sequence[str], notes: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._title, self._names, self._taken, self._notes = title, [*names], set(taken), notes or {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = self._title
            box.border_subtitle = "space selects, enter shows them, esc cancels"
            yield ChoiceRows(self._taken, self._notes)

    def on_mount(self) -> None:
        rows = self.query_one(ChoiceRows)
        rows.set_rows(self._names)
        rows.focus()

    def action_take(self) -> None:
        rows = self.query_one(ChoiceRows)
        if rows.current is not None:
            self._taken ^= {rows.current}
            rows.refresh()

    @on(Rows.Chosen)
    def _done(self) -> None:
        self.dismiss([name for name in self._names if name in self._taken])
