"""Tells whether a file is still the one that was read, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int]
"""Bytes, mtime in ns, inode: an edit changes the first two, a replacement the last."""


def stamp(path: Path) -> Stamp | None:
    """Return what changes whenever a file does; None if it is missing or cannot be accessed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
