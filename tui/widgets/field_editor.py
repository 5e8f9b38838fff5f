"""The setting under the cursor: what it is for, which values it takes, its default, and a field to type into."""

from __future__ import annotations

from dataclasses import dataclass, replace

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from hv15.config.after_edit import after_edit
from hv15.errors import UserError
from hv15.terminal_text import original, visible
from tui.data.config_form import FormField, FormSection


class FieldEditor(Vertical):
    """Follows the cursor of the form; enter in its field sets the value. Long help scrolls."""

    DEFAULT_CSS = """
    FieldEditor { height: auto; max-height: 9; }
    FieldEditor VerticalScroll { height: auto; max-height: 6; scrollbar-size-vertical: 1; }
    FieldEditor Static { height: auto; }
    FieldEditor Input { width: 1fr; display: none; background: $surface; }
    FieldEditor.-editing Input { display: block; }
    """

    PART_NAME = "Setting"
    BINDINGS = [  # noqa: RUF012 (as Textual declares it)
        Binding("escape", "leave", "Back", id="field-leave", tooltip="back to the list, nothing changed"),
    ]

    @dataclass
    class Entered(Message):
        """A value was typed."""

        field: FormField
        text: str

    @dataclass
    class Left(Message):
        """The field was left without a change."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.field: FormField | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static(id="field-help")
        yield Input(id="field-input", compact=True)

    def show(self, row: FormField | FormSection | None) -> None:
        """Show the help of a setting or of a section."""
        self.field = row if isinstance(row, FormField) else None
        self.query_one(VerticalScroll).scroll_home(animate=False)
        self.explain(row)

    def explain(self, row: FormField | FormSection | None) -> None:
        """Update only the help of a setting or a section: what is being typed stays."""
        help_text = self.query_one("#field-help", Static)
        if row is None:
            help_text.update("")
        elif isinstance(row, FormSection):
            more = "\n+ adds another entry, - removes this one" if row.is_entry else ""
            help_text.update(Content.assemble((row.title, "bold"), "  ", row.help, (more, "$faint")))
        else:
            default = "" if row.default in (..., None) else f", default {visible(row.default_text)}"
            effect = f" · {words}" if (words := after_edit(row.affects)) else ""
            parts = [Content.assemble((row.path, "bold"), "  ", (row.type + default + effect, "$faint"))]
            if row.problem:
                parts.append(Content.styled(f"✗ {visible(row.problem)}", "bold $error"))
            parts.append(Content(row.help))
            help_text.update(Content("\n").join(parts))

    def edit(self, field: FormField) -> None:
        """Put the cursor into the field."""
        self.show(field)
        self.add_class("-editing")
        box = self.query_one(Input)
        box.suggester = SuggestFromList(field.choices, case_sensitive=False) if field.choices else None
        box.placeholder = field.default_text
        box.value = visible(self._before)
        box.cursor_position = len(box.value)
        box.focus()

    def refuse(self, field: FormField, text: str, error: UserError) -> None:
        """Put the cursor back into the field, with what was typed and why it cannot be taken."""
        self.edit(field)
        box = self.query_one(Input)
        box.value = visible(text)
        box.cursor_position = len(box.value)
        self.explain(replace(field, problem=f"{error.message} {error.hint}".strip()))

    @property
    def is_editing(self) -> bool:
        return self.has_class("-editing")

    @property
    def typed(self) -> str:
        """The text of the field, with the control characters that it shows as signs."""
        value = self.query_one(Input).value
        return self._before if value == visible(self._before) else original(value)

    @property
    def _before(self) -> str:
        return self.field.text if self.field is not None and self.field.in_file else ""

    def close(self) -> None:
        """Hide the field."""
        self.remove_class("-editing")

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        if self.field is not None:
            self.post_message(self.Entered(self.field, self.typed))

    def action_leave(self) -> None:
        self.close()
        self.post_message(self.Left())
