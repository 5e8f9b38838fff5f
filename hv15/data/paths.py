"""Why a path that somebody wrote leads nowhere: its near neighbours, and what Windows and escapes make of it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from hv15.terminal_text import one_line

_WINDOWS = re.compile(r"(?P<drive>[A-Za-z]):(?P<rest>[\\/].*)?", re.DOTALL)
_SHOWN = 200
_NAMES = 10_000
"""Of a folder's names, so many are compared."""


def brief(text: str) -> str:
    """Return what can be shown of a name or value that somebody wrote, in one line: nobody reads more of it."""
    return one_line(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def near(path: Path) -> str:
    """Return "; did you mean ...?" with a name like that of a missing file, or "".

    It is looked for in the deepest folder of the path that exists.
    """
    missing, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    try:
        matches = difflib.get_close_matches(missing, os.listdir(parent)[:_NAMES], n=1)  # noqa: PTH208 (names alone)
    except (OSError, ValueError):
        return ""
    return f"; did you mean {parent / matches[0]}?" if matches else ""


def cure(path: str) -> str:
    """Return what to do about a path that leads nowhere because of how it was written; "" if that is not the reason."""
    if any(ord(character) < 32 for character in path):
        return 'a backslash begins an escape ("\\t" is a tab): write the path with / instead'
    windows = _WINDOWS.fullmatch(path)
    if windows and os.name != "nt":
        rest = (windows["rest"] or "/").replace("\\", "/")
        return f"that is a path of Windows: in WSL it is /mnt/{windows['drive'].lower()}{rest}"
    if "\\" in path and os.name != "nt":
        return f"write it with / instead of backslashes: {path.replace(chr(92), '/')}"
    return ""


def find(path: str, folders: Iterable[Path]) -> tuple[str | None, str]:
    """Return where a path is, and where it was looked for first.

    A Mac writes accents as letters of their own (NFD), most others as part of the letter (NFC): a name is found in
    either form. `~` is the home.

    Args:
        path: as written; a relative one begins in one of `folders`, the first that has it.
        folders: in the order of trying.
    """
    path = os.path.expanduser(path)  # noqa: PTH111 (100,000 rows)
    tried = [os.path.join(folder, path) for folder in folders]  # noqa: PTH118 (as above)
    found = next((name for name in tried if os.path.exists(name)), None)  # noqa: PTH110 (as above)
    if found is None and not path.isascii():
        forms = [normalize(form, name) for name in tried for form in ("NFC", "NFD")]
        found = next((name for name in forms if os.path.exists(name)), None)  # noqa: PTH110 (as above)
    return found, tried[0]
