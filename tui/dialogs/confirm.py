"""A question with two or more answers, each with a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static
from textual.widgets.button import ButtonVariant


@dataclass(frozen=True)
class Answer:
    """One choice: the value it returns, its text, its key."""

    value: str
    label: str
    key: str
    variant: ButtonVariant = "default"


class Confirm(ModalScreen[str | None]):
    """Returns the value of the answer, or None for escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", id="confirm-cancel", tooltip="change nothing"),
        Binding(
            "left,up", "app.focus_previous", "Back", id="confirm-previous", show=False, tooltip="the answer before"
        ),
        Binding("right,down", "app.focus_next", "Next", id="confirm-next", show=False, tooltip="the next answer"),
    ]

    def __init__(self, title: str, text: str | Content, answers: Sequence[Answer]) -> None:
        super().__init__()
        self._title, self._text, self._answers = title, text, {answer.key: answer for answer in answers}

    def compose(self) -> ComposeResult:
        box = Vertical(classes="dialog")
        box.border_title = self._title
        box.border_subtitle = "esc cancels"
        with box:
            with VerticalScroll(classes="dialog-text", can_focus=False):
                yield Static(self._text if isinstance(self._text, Content) else Content(self._text))
            with Horizontal(classes="dialog-answers"):
                for answer in self._answers.values():
                    label = Content.assemble(answer.label, (f" ({answer.key})", "dim"))
                    yield Button(label, name=answer.value, variant=answer.variant, compact=True)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    def on_key(self, event: events.Key) -> None:
        answer = self._answers.get(event.character or "") or self._answers.get(event.key)
        if answer is not None:
            event.stop()
            self.dismiss(answer.value)

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.name or "")
