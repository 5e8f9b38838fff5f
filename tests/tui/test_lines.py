"""Widgets of many lines: what is scrolled to before the scrollbar is there."""

from __future__ import annotations

import asyncio

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Size

from tui.widgets.lines import Lines
from tui.widgets.log_tail import LogTail
from tui.widgets.rows import Rows


@pytest.mark.parametrize("kind", [LogTail, Rows])
def test_a_scrollbar_that_appears_shows_where_the_lines_are(kind: type[Lines]) -> None:
    class Small(App[None]):
        def get_theme_variable_defaults(self) -> dict[str, str]:
            return {"faint": "#888888"}

        def compose(self) -> ComposeResult:
            yield kind()

    async def run() -> None:
        async with Small().run_test(size=(40, 10)) as pilot:
            await pilot.pause()
            lines = pilot.app.query_one(kind)
            lines.virtual_size = Size(0, 100)
            lines.scroll_to(y=lines.max_scroll_y, animate=False, force=True)
            assert not lines.show_vertical_scrollbar, "else it would follow by itself"
            await pilot.pause()
            assert lines.scroll_y == 90
            assert lines.vertical_scrollbar.position == 90

    asyncio.run(run())
