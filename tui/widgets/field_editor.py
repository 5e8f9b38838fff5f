"""The setting under the cursor: what it is for, which values it takes, its default, and a field to type into."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from tui.data.config_form import FormField, FormSection


class FieldEditor(Vertical):
    """Follows the cursor of the form; enter in its field sets the value."""

    DEFAULT_CSS = """
    FieldEditor { height: auto; max-height: 9; }
    FieldEditor Static { height: auto; max-height: 6; }
    FieldEditor Input { width: 1fr; display: none; background: $surface; }
    FieldEditor.-editing Input { display: block; }
    """

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
        """Nothing is to be changed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.field: FormField | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="field-help")
        yield Input(id="field-input", compact=True)

    def show(self, row: FormField | FormSection | None) -> None:
        """Show the help of a setting or of a section."""
        self.field = row if isinstance(row, FormField) else None
        help_text = self.query_one("#field-help", Static)
        if row is None:
            help_text.update("")
        elif isinstance(row, FormSection):
            more = "\n+ adds another entry, - removes this one" if row.is_entry else ""
            help_text.update(Content.assemble((row.title, "bold"), "  ", row.help, (more, "$faint")))
        else:
            default = "" if row.default_text in ("", "required", "not given") else f", default {row.default_text}"
            affects = {"speed": " · changes no result, reruns nothing", "place": " · a place: reruns nothing"}
            parts = [
                Content.assemble(
                    (row.path, "bold"), "  ", (row.type + default + affects.get(row.affects or "", ""), "$faint")
                )
            ]
            if row.problem:
                parts.append(Content.styled(f"✗ {row.problem}", "bold $error"))
            parts.append(Content(row.help))
            help_text.update(Content("\n").join(parts))

    def edit(self, field: FormField) -> None:
        """Put the cursor into the field."""
        self.show(field)
        self.add_class("-editing")
        box = self.query_one(Input)
        choices = ("true", "false") if field.kind == "bool" else field.choices
        box.suggester = SuggestFromList(choices, case_sensitive=False) if choices else None
        box.placeholder = field.default_text
        box.value = field.text if field.given else ""
        box.cursor_position = len(box.value)
        box.focus()

    def close(self) -> None:
        """Hide the field."""
        self.remove_class("-editing")

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        if self.field is not None:
            self.post_message(self.Entered(self.field, event.value))

    def action_leave(self) -> None:
        self.close()
        self.post_message(self.Left())
