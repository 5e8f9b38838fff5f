"""Terminals with few colours: over a line or in a tmux that says nothing of true colour, and on consoles.

Close shades fall together there, so what is chosen is drawn as its own negative, and videos are stills.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from textual.app import App
from textual.theme import Theme

_WORDS = {"256": "256 colours", "standard": "16 colours", None: "no colours"}
"""By what Rich calls the colours of a terminal."""


def few_colours(app: App[Any]) -> str:
    """How few colours the terminal has, in words; "" when it has them all."""
    return _WORDS.get(app.console.color_system, "")


def with_negatives(theme: Theme) -> Theme:
    """The theme with its cursor drawn in shades that every terminal tells apart."""
    grey, on_grey = ("#6c6c6c", "#ffffff") if theme.dark else ("#c0c0c0", "#000000")
    negatives = {
        "block-cursor-background": str(theme.foreground),
        "block-cursor-foreground": str(theme.background),
        "block-cursor-blurred-background": grey,
        "block-cursor-blurred-foreground": on_grey,
    }
    return replace(theme, variables={**theme.variables, **negatives})
