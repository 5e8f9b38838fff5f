"""How states look: always a glyph and a word, so that they can be told apart without colour."""

from __future__ import annotations

from textual.content import Content

LOOKS: dict[str, tuple[str, str]] = {
    # state: (glyph, theme variable)
    "idle": ("○", "faint"),
    "starting": ("◌", "primary"),
    "running": ("▶", "primary"),
    "stopping": ("◧", "warning"),
    "finished": ("✓", "success"),
    "failed": ("✗", "error"),
    "stopped": ("■", "warning"),
    "died": ("†", "error"),
    "elsewhere": ("⇄", "primary"),
    "unreadable": ("¿", "warning"),
    "waiting": ("·", "faint"),
    "done": ("✓", "success"),
    "cut short": ("■", "warning"),
    "not begun": ("○", "faint"),
    "stale": ("≠", "warning"),
}


def glyph(state: str) -> str:
    """The sign of a state; a question mark for an unknown one."""
    return LOOKS.get(state, ("?", "foreground"))[0]


def colour_of(state: str) -> str:
    """The theme variable of a state's colour."""
    return LOOKS.get(state, ("?", "foreground"))[1]


def state_text(state: str) -> Content:
    """A state's glyph and word in its colour."""
    return Content.styled(f"{glyph(state)} {state}", f"bold ${colour_of(state)}")
