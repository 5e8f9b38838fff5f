"""Several views in one frame, their names in its title; one is shown."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import ContentSwitcher


class Pages(Widget):
    """Like tabs, but the names take no line of their own. Each view needs an id, and is mounted when it is first shown,
    so that hidden views cost no time when the screen is opened.
    """

    DEFAULT_CSS = """
    Pages { height: 1fr; }
    Pages ContentSwitcher { height: 1fr; }
    """

    page: reactive[int] = reactive(0, init=False)

    class Turned(Message):
        """Another page is shown."""

        def __init__(self, pages: Pages) -> None:
            super().__init__()
            self.pages = pages

    def __init__(
        self, pages: Sequence[tuple[str, Widget]], *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._names = [name for name, _ in pages]
        self._widgets = [widget for _, widget in pages]
        self._facts = [""] * len(pages)

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial=self._widgets[0].id):
            yield self._widgets[0]

    def on_mount(self) -> None:
        self._entitle()

    @property
    def shown(self) -> Widget:
        """The view that is shown."""
        return self._widgets[self.page]

    def say(self, number: int, fact: str) -> None:
        """Show a word after the name of a page, such as how many rows it has."""
        if self._facts[number] != fact:
            self._facts[number] = fact
            self._entitle()

    def turn(self, number: int) -> None:
        """Show another page; if the focus was in the old one, it moves along."""
        focused = self.has_focus_within
        self.page = number % len(self._widgets)
        if focused:
            self.shown.focus()

    def watch_page(self) -> None:
        if self.shown.parent is None:
            self.query_one(ContentSwitcher).mount(self.shown)
        self.query_one(ContentSwitcher).current = self.shown.id
        self._entitle()
        self.post_message(self.Turned(self))

    def _entitle(self) -> None:
        parts = []
        for number, (name, fact) in enumerate(zip(self._names, self._facts, strict=True)):
            text = f"{name} {fact}".strip()
            parts.append(
                Content.styled(f"[{text}]", "bold $accent") if number == self.page else Content.styled(text, "$faint")
            )
        self.border_title = Content("  ").join(parts)
