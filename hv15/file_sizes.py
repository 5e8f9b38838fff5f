"""The size of files on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISREG


def bytes_of(path: Path, pattern: str = "*") -> int:
    """Return the bytes of a file, or of the files below a folder whose names match a pattern; 0 if it is missing.

    Files that are removed meanwhile, such as by a running training, count as nothing.
    """
    return sum(map(_bytes, _below(path, pattern) if path.is_dir() else [path]))


def _below(folder: Path, pattern: str) -> Iterator[Path]:
    for inner, _, names in os.walk(folder):  # unlike rglob, it ignores a folder that is gone
        yield from (Path(inner, name) for name in names if fnmatchcase(name, pattern))


def _bytes(path: Path) -> int:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    return found.st_size if S_ISREG(found.st_mode) else 0
