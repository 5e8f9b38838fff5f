"""A file with a number, as command lines name it: FILE or FILE:NUMBER."""

from __future__ import annotations

import math
from pathlib import Path


def read_weighted_file(words: str) -> tuple[Path, float | None]:
    """Return a file and its finite number; None if there is none. A file whose whole name is like that goes first."""
    name, _, number = words.rpartition(":")
    if name and not Path(words).expanduser().exists():
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if math.isfinite(weight):
            return Path(name).expanduser(), weight
    return Path(words).expanduser(), None
