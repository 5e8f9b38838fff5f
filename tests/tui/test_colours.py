"""Terminals with few colours: what is chosen is seen in both themes, and videos are stills with a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.color import Color, ColorSystem
from textual.app import ComposeResult

from tests.tui.recorded import Themed
from tests.tui.watched import dashboard, run_row, settle
from tui.colours import few_colours
from tui.data.samples import DecodedClip
from tui.project_files import RunView
from tui.widgets.runs_table import RunsTable
from tui.widgets.video import Player, VideoView

TERMINALS = {
    "xterm-256color": ("256 colours", ColorSystem.EIGHT_BIT),
    "xterm": ("16 colours", ColorSystem.STANDARD),
}


@pytest.fixture(params=["xterm-256color", pytest.param("xterm", marks=pytest.mark.slow)])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", request.param)
    monkeypatch.delenv("COLORTERM")
    return str(request.param)


def drawn(colour: Color | None, system: ColorSystem) -> tuple[int, int, int]:
    """What such a terminal shows for a colour."""
    assert colour is not None
    return tuple(colour.downgrade(system).get_truecolor())


async def test_the_selected_row_is_seen_in_both_themes(tmp_path: Path, terminal: str) -> None:
    words, system = TERMINALS[terminal]
    rows = tuple(run_row(number=number, root=tmp_path) for number in range(3))
    app = dashboard(tmp_path, run=RunView(rows[0], rows), at="runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        assert few_colours(app) == words
        table = app.screen.query_one(RunsTable)
        for _theme in range(2):
            for focused in (True, False):
                app.screen.set_focus(table if focused else None)
                await pilot.pause()
                chosen, other = table.render_line(1), table.render_line(2)
                background = {drawn(each.style.bgcolor, system) for each in other if each.style}
                for each in chosen:
                    assert each.style is not None
                    under = drawn(each.style.bgcolor, system)
                    assert under not in background
                    assert sum(abs(a - b) for a, b in zip(under, drawn(each.style.color, system), strict=True)) > 200
            await pilot.press("f2")
            await pilot.pause()


class Alone(Themed):
    def compose(self) -> ComposeResult:
        yield Player(clock=lambda: 0.0)


async def test_videos_are_stills_with_a_word(terminal: str) -> None:
    app = Alone()
    async with app.run_test(size=(100, 30)) as pilot:
        player = app.query_one(Player)
        player.query(VideoView).first().show(DecodedClip(np.zeros((9, 4, 4, 3), np.uint8), 24.0, (4, 4), 9))
        await pilot.press("space")
        assert not player.playing
        said = str(player.query_one("Player > Static").render())
        assert f"stills only: {TERMINALS[terminal][0]}" in said
        assert "COLORTERM=truecolor" in said
        await pilot.press("right", "right")
        assert player.index == 2
