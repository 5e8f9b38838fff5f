"""The two looks of the dashboard. Everything else takes its colours from these names."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="hv15-dark",
    primary="#7aa2f7",
    secondary="#9d7cd8",
    accent="#e0af68",
    foreground="#d5d9e6",
    background="#14161f",
    surface="#1a1d29",
    panel="#242838",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    dark=True,
    variables={
        "border": "#3b4261",
        "border-blurred": "#2b3047",
        "block-cursor-background": "#33467c",
        "block-cursor-foreground": "#f0f3ff",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#262d48",
        "block-cursor-blurred-foreground": "#d5d9e6",
        "footer-background": "#1a1d29",
        "footer-key-foreground": "#e0af68",
        "footer-description-foreground": "#9aa3c0",
        "input-selection-background": "#7aa2f7 35%",
        "faint": "#7d86a6",
        "series-1": "#7aa2f7",
        "series-2": "#e0af68",
        "series-3": "#9ece6a",
        "series-4": "#f7768e",
        "series-5": "#bb9af7",
        "series-6": "#7dcfff",
    },
)

LIGHT = Theme(
    name="hv15-light",
    primary="#2a5bd7",
    secondary="#7a3fb8",
    accent="#8f5a00",
    foreground="#1f2430",
    background="#fbfbfd",
    surface="#f2f3f8",
    panel="#e4e7f0",
    success="#2f7d1f",
    warning="#8f5a00",
    error="#c4263f",
    dark=False,
    variables={
        "border": "#a9b1c8",
        "border-blurred": "#cfd4e2",
        "block-cursor-background": "#c9d7fb",
        "block-cursor-foreground": "#11182b",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#e2e7f5",
        "block-cursor-blurred-foreground": "#1f2430",
        "footer-background": "#e9ecf4",
        "footer-key-foreground": "#8f5a00",
        "footer-description-foreground": "#4a5270",
        "input-selection-background": "#2a5bd7 25%",
        "faint": "#667090",
        "series-1": "#2a5bd7",
        "series-2": "#b36b00",
        "series-3": "#2f7d1f",
        "series-4": "#c4263f",
        "series-5": "#7a3fb8",
        "series-6": "#00799e",
    },
)

SERIES = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")
"""Theme variables for curves, in the order in which they are given out."""
