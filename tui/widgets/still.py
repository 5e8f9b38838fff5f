"""One frame at full resolution, where the terminal can draw pictures (sixel, kitty); else as large half blocks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from PIL import Image as PillowImage
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Center, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from hv15.terminal_text import visible
from tui.data.samples import still
from tui.widgets.video import Playable, Player

_picture: Callable[..., Widget] | None = None


def ask_terminal() -> None:
    """Find out whether the terminal draws pictures. That is possible only before the app runs, which reads all input.

    tmux and screen are not asked: they may say yes and then draw over other panes.
    """
    global _picture
    if os.environ.get("TMUX") or os.environ.get("STY") or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    from textual_image.renderable import Image, SixelImage, TGPImage

    if Image in (SixelImage, TGPImage):
        from textual_image.widget import Image as Picture

        _picture = Picture


def why_not() -> str:
    """Why no picture at full resolution can be drawn; "" when it can."""
    if _picture is not None:
        return ""
    if os.environ.get("TMUX") or os.environ.get("STY"):
        return "inside tmux a picture cannot be drawn at full resolution: half blocks"
    return "this terminal draws no pictures (sixel, kitty): half blocks"


class StillDialog(ModalScreen[None]):
    """Shows one frame; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,v,q,enter", "dismiss(None)", "Close", id="still-close", tooltip="back to the samples"),
    ]
    DEFAULT_CSS = """
    StillDialog { align: center middle; }
    StillDialog Vertical { width: 100%; height: 100%; background: $background; }
    StillDialog #still-note { height: 1; color: $faint; text-align: center; width: 1fr; }
    StillDialog Center { height: 1fr; }
    StillDialog .picture { width: auto; height: 100%; }
    """

    def __init__(self, path: Path, index: int, title: str) -> None:
        super().__init__()
        self._path, self._index, self._title = path, index, title

    def compose(self) -> ComposeResult:
        with Vertical():
            if _picture is not None:
                yield Center(id="still-place")
            else:
                yield Player()
            yield Static(Content(f"{self._title} · {why_not() or 'full resolution'} · esc closes"), id="still-note")

    def on_mount(self) -> None:
        if _picture is None:
            player = self.query_one(Player)
            player.load(Playable(self._path, self._title), at=self._index)
        else:
            self.run_worker(self._decode, thread=True, exit_on_error=False)

    def _decode(self) -> None:
        try:
            picture = still(self._path, self._index)
        except Exception as error:  # shown, whatever it is
            self.app.call_from_thread(self._say, str(error))
        else:
            self.app.call_from_thread(self._show, picture)

    def _show(self, picture: PillowImage.Image) -> None:
        if self.is_attached and _picture is not None:
            self.query_one("#still-place").mount(_picture(picture, classes="picture"))

    def _say(self, words: str) -> None:
        if self.is_attached:
            self.query_one("#still-note", Static).update(Content(visible(words)))
