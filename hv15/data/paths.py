"""Finds the file of a path that a user wrote, and explains why there is none: typos, Windows paths, escapes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from hv15.terminal_text import one_line

_WINDOWS = re.compile(r"(?P<drive>[A-Za-z]):(?P<rest>[\\/].*)?", re.DOTALL)
_MOST_CHARACTERS = 200
_MOST_NAMES = 10_000
"""Most names in a folder that are compared with a missing one."""


def brief(text: str) -> str:
    """Shorten a name or value that a user wrote to one line, for messages."""
    return one_line(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}...")


def near(path: Path) -> str:
    """Return "; did you mean ...?" with a name similar to that of a missing file, or "".

    The name is looked for in the deepest existing folder of the path.
    """
    missing, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    try:
        matches = difflib.get_close_matches(missing, os.listdir(parent)[:_MOST_NAMES], n=1)  # noqa: PTH208 (names alone)
    except (OSError, ValueError):
        return ""
    return f"; did you mean {parent / matches[0]}?" if matches else ""


def cure(path: str) -> str:
    """Return what to do about a path that does not exist because of how it was written; "" if that is not why."""
    if any(ord(character) < 32 for character in path):
        return 'a backslash begins an escape ("\\t" is a tab): write the path with / instead'
    windows = _WINDOWS.fullmatch(path)
    if windows and os.name != "nt":
        rest = (windows["rest"] or "/").replace("\\", "/")
        return f"that is a Windows path: in WSL it is /mnt/{windows['drive'].lower()}{rest}"
    if "\\" in path and os.name != "nt":
        return f"write it with / instead of backslashes: {path.replace(chr(92), '/')}"
    return ""


def find(path: str, folders: Iterable[Path]) -> tuple[str | None, str]:
    """Return the location of a path, None if it does not exist, and where it was looked for first.

    A name is found whether its accents are separate characters (NFD, as on a Mac) or part of the letter (NFC). `~` is
    expanded.

    Args:
        path: as written; a relative path is looked for in each of `folders`.
        folders: in the order in which they are tried.
    """
    path = os.path.expanduser(path)  # noqa: PTH111 (100,000 rows)
    tried = [os.path.join(folder, path) for folder in folders]  # noqa: PTH118 (as above)
    found = next((name for name in tried if os.path.exists(name)), None)  # noqa: PTH110 (as above)
    if found is None and not path.isascii():
        forms = [normalize(form, name) for name in tried for form in ("NFC", "NFD")]
        found = next((name for name in forms if os.path.exists(name)), None)  # noqa: PTH110 (as above)
    return found, tried[0]
