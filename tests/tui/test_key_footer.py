"""The line of keys shows what Textual's own would, and is made anew only when that changes."""

from __future__ import annotations

from typing import ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Footer, Static
from textual.widgets._footer import FooterKey

from tui.widgets.key_footer import KeyFooter


class Left(Static, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("x", "cut", "Cut"), Binding("h", "cut", "Hidden", show=False)]


class Right(Static, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "yank", "Yank", tooltip="copy it")]


class Page(App[None]):
    """Three fields, of which the first two have the same keys, and a line of keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("s", "start", "Start")]
    can_start = True

    def __init__(self, footer: Footer) -> None:
        super().__init__()
        self.footer = footer

    def compose(self) -> ComposeResult:
        with Container():
            yield Left("one", id="one")
            yield Left("two", id="two")
            yield Right("three", id="three")
        yield self.footer

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if action == "start" and not self.can_start else True


def keys(app: App[None]) -> list[FooterKey]:
    return list(app.query(FooterKey))


def text(app: App[None]) -> str:
    return app.screen._compositor.render_strips()[-1].text.rstrip()


async def test_only_other_keys_make_it_anew() -> None:
    app = Page(KeyFooter())
    async with app.run_test(size=(60, 8)) as pilot:
        await pilot.pause()
        first = keys(app)
        assert text(app) == "x Cut s Start"
        await pilot.press("tab")
        assert app.focused is not None
        assert app.focused.id == "two"
        assert keys(app) == first
        await pilot.press("tab")
        assert text(app) == "y Yank s Start"
        assert keys(app)[0].tooltip == "copy it"
        app.can_start = False
        app.refresh_bindings()
        await pilot.pause()
        assert [key.has_class("-disabled") for key in keys(app)] == [False, True]


@pytest.mark.parametrize("presses", [0, 1, 2])
async def test_it_looks_like_textuals(presses: int) -> None:
    pictures = []
    for footer in (KeyFooter(), Footer(show_command_palette=False, compact=True)):
        app = Page(footer)
        async with app.run_test(size=(60, 8)) as pilot:
            await pilot.press(*["tab"] * presses)
            pictures.append([list(strip) for strip in app.screen._compositor.render_strips()])
    assert pictures[0] == pictures[1]
