"""How a message names many files: the first of them, and how many more."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 20
"""Files that are listed by name."""


def listing(lines: Sequence[str]) -> str:
    """Return the first lines, indented, and how many were left out."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        shown.append(f"  ... and {len(lines) - SHOWN} more")
    return "\n".join(shown)
