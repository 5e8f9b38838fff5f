"""What has the focus, what it is for, and which keys work here."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Button, Input, Static, TextArea


class HelpDialog(ModalScreen[None]):
    """Shows what the widgets say of themselves: their HELP, and the tooltips of their bindings."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss(None)", "Close", id="help-close", tooltip="close the help")
    ]

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content

    def compose(self) -> ComposeResult:
        box = VerticalScroll(Static(self._content), classes="dialog -tall")
        box.border_title = "Help"
        box.border_subtitle = "esc closes"
        yield box


def help_for(screen: Screen[object]) -> Content:
    """Return the help for what has the focus on a screen, and for what lies around it."""
    parts: list[Content] = []
    node = screen.focused or screen
    seen: set[str] = set()
    for each in node.ancestors_with_self:
        text = getattr(each, "HELP", None)
        if isinstance(each, Widget) and text and text not in seen:
            seen.add(text)
            parts.append(Content.assemble((name_of(each, screen), "bold $accent"), "\n", " ".join(text.split()), "\n"))
    active = [each for each in screen.active_bindings.values() if each.binding.description or each.tooltip]
    for owner, group in groupby(active, key=lambda each: each.node):
        name = name_of(owner, screen)
        lines: dict[str, tuple[list[str], str]] = {}
        for key in group:
            text = key.tooltip or key.binding.description
            keys, _ = lines.setdefault(key.binding.action, ([], text))
            keys.append(screen.app.get_key_display(Binding(key.binding.key, "")))
        rows = [
            Content.assemble((f"  {' '.join(dict.fromkeys(keys)):<14} ", "bold $primary"), text)
            for keys, text in lines.values()
        ]
        parts.append(Content.assemble((f"Keys: {name}", "bold $accent"), "\n", Content("\n").join(rows), "\n"))
    return Content("\n").join(parts)


def name_of(node: DOMNode, screen: Screen[object]) -> str:
    """The name of a part of a screen, or of the part that it lies in."""
    if node is screen.app:
        return "Everywhere"
    for each in node.ancestors_with_self:
        if each is screen:
            break
        if name := getattr(each, "PART_NAME", ""):
            return str(name)
        if isinstance(each, Input | TextArea):
            return "Text field"
        if isinstance(each, Button):
            return "Button"
        if isinstance(each, Widget) and each.border_title:
            return str(each.border_title)
    return "This screen"
