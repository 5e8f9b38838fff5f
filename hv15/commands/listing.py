"""How a message names many files: the first of them, and how many more."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from hv15.terminal_text import one_line

MOST_LISTED = 20
"""The most files that are listed by name."""


def listing(lines: Collection[str], *, shown: int = MOST_LISTED) -> str:
    """Return the first lines, indented, and how many were left out."""
    words = [f"  {one_line(line)}" for line in islice(lines, shown)]
    if len(lines) > shown:
        words.append(f"  ... and {len(lines) - shown} more")
    return "\n".join(words)
