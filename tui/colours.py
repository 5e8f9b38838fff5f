"""Terminals with few colours: consoles, and connections or a tmux that do not announce true colour.

Similar shades look alike there, so what is selected is drawn in inverted colours, and videos are stills.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from textual.app import App
from textual.theme import Theme

_WORDS = {"256": "256 colours", "standard": "16 colours", None: "no colours"}
"""By Rich's names for the colours of a terminal."""


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
