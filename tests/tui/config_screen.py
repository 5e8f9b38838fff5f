"""What the tests of the screen Config do again and again."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from tests.tui.recorded import until
from tests.tui.watched import settle
from tui.app import Dashboard
from tui.screens.config import ConfigScreen

RATE = ("train", "learning_rate")


async def opened(pilot: Pilot[None]) -> ConfigScreen:
    await settle(pilot)
    assert isinstance(pilot.app, Dashboard)
    screen = pilot.app.screen
    assert isinstance(screen, ConfigScreen)
    assert screen.view is not None
    return screen


async def checked(pilot: Pilot[None]) -> None:
    """Wait until what was typed into the text is checked."""
    screen = pilot.app.screen
    assert isinstance(screen, ConfigScreen)
    await pilot.pause()
    await until(pilot, lambda: screen._typing is None)
    await settle(pilot)


def saved(folder: Path) -> str:
    return (folder / "config.yaml").read_text()


async def typed(pilot: Pilot[None], text: str) -> None:
    for character in text:
        await pilot.press({".": "full_stop", "-": "minus"}.get(character, character))
