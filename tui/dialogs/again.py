"""A sample made again with other settings: a form that is filled with those that it was made with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Select, Static

from hv15.records.paths import ProjectPaths
from hv15.terminal_text import original, visible
from tui.data.again import Again, AgainFields, FieldError

NAMES = {
    "prompt": "prompt",
    "negative": "negative",
    "seed": "seed",
    "steps": "steps",
    "guidance": "guidance",
    "lora": "LoRA",
    "strength": "strength",
    "size": "size",
    "frames": "frames",
}
"""Fields -> what stands before them, in this order."""
EXAMPLES = {
    "negative": "as in the project",
    "seed": "a number, or several: 1 2 3",
    "size": "height and width, or 720p 16:9",
    "frames": "4k+1, such as 121; 1: a still image",
}
"""What stands in an empty field."""


class AgainDialog(ModalScreen[AgainFields | None]):
    """Returns what was typed, which the command takes, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", id="again-cancel", tooltip="make nothing"),
        Binding(
            "ctrl+s", "make", "Make it", id="again-make", tooltip="start making it: it continues without the dashboard"
        ),
    ]
    HELP = f"""Samples once more, by `hv15 sample` as a run of its own, with what stands in the fields; an empty one
    leaves the project's setting. Enter or ctrl+s starts it. The new files are in {ProjectPaths().again}, and appear
    among the samples of their prompt. Several seeds make several files."""

    DEFAULT_CSS = """
    AgainDialog .fields { height: auto; max-height: 1fr; }
    AgainDialog .field { height: 1; }
    AgainDialog .field Label { width: 11; color: $faint; }
    AgainDialog .field Input { width: 1fr; }
    AgainDialog .field Select { width: 1fr; }
    AgainDialog #again-note { height: auto; max-height: 3; color: $warning; }
    AgainDialog #again-note.-wrong { color: $error; }
    """

    def __init__(self, again: Again) -> None:
        super().__init__()
        self._again = again

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -broad") as box:
            box.border_title = Content(f"Again: {visible(self._again.sample.prompt_name)}")
            box.border_subtitle = "esc cancels"
            with VerticalScroll(classes="fields", can_focus=False):
                for name, words in NAMES.items():
                    with Horizontal(classes="field"):
                        yield Label(words)
                        yield self._field(name)
            yield Static(Content("\n".join(map(visible, self._notes()))), id="again-note")
            with Horizontal(classes="dialog-answers"):
                label = Content.assemble("Make it ", ("(ctrl+s)", "dim"))
                yield Button(label, id="again-start", variant="success", compact=True)
                yield Button(Content.assemble("Cancel ", ("(esc)", "dim")), id="again-leave", compact=True)

    def on_mount(self) -> None:
        self.query_one("#again-seed").focus()

    def _field(self, name: str) -> Widget:
        value = getattr(self._again.fields, name)
        if name == "lora":
            choices = [(Content(visible(each.name)), each.name) for each in self._again.loras]
            return Select(choices, value=value, allow_blank=False, compact=True, id="again-lora")
        return Input(visible(value), placeholder=EXAMPLES.get(name, ""), compact=True, id=f"again-{name}")

    def _notes(self) -> Iterator[str]:
        if self._again.note:
            yield self._again.note
        if self._again.others:
            yield f"and as before: {self._again.others}"

    @property
    def typed(self) -> AgainFields:
        """What stands in the fields."""
        return AgainFields(**{each.name: self._typed(each.name) for each in fields(AgainFields)})

    def _typed(self, name: str) -> str:
        if name == "lora":
            return str(self.query_one("#again-lora", Select).value)
        before, value = getattr(self._again.fields, name), self.query_one(f"#again-{name}", Input).value
        return str(before) if value == visible(before) else original(value)

    @on(Input.Submitted)
    @on(Button.Pressed, "#again-start")
    def action_make(self) -> None:
        """Give back what was typed, or say what is wrong with it."""
        typed = self.typed
        try:
            self._again.command(typed)
        except FieldError as error:
            note = self.query_one("#again-note", Static)
            note.update(Content(f"✗ {NAMES[error.name]}: {visible(error.message)}"))
            note.add_class("-wrong")
            self.query_one(f"#again-{error.name}").focus()
        else:
            self.dismiss(typed)

    @on(Button.Pressed, "#again-leave")
    def action_cancel(self) -> None:
        """Make nothing."""
        self.dismiss(None)
