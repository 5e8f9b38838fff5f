"""A file with a number, as command lines name it: FILE or FILE:NUMBER."""

from __future__ import annotations

import math
from pathlib import Path

from hv15.errors import UserError


def read_weighted_file(words: str) -> tuple[Path, float | None]:
    """Return a file and its finite number; None if there is none. A file whose whole name is like that goes first.

    Raises:
        UserError: what stands behind the name of a file that exists is no finite number.
    """
    name, _, number = words.rpartition(":")
    if name and not Path(words).expanduser().exists():
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if math.isfinite(weight):
            return Path(name).expanduser(), weight
        if Path(name).expanduser().is_file():
            raise UserError(
                f"{words}: found '{number}' behind the colon, expected a number", hint=f"for example {name}:0.8"
            )
    return Path(words).expanduser(), None
