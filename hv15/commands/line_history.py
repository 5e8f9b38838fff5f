"""The lines that a person has typed, kept for the next session in the user's own state folder.

The folder and the file are for nobody else. What is no regular file there is left alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from types import ModuleType

from hv15.own_files import open_own
from hv15.user_folders import state_folder

KEPT = 1000
"""Lines in the file."""
_MOST_BYTES = 1 << 22


class LineHistory:
    """The history of readline, read from a file and written to it; nothing where there is no readline."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> None:
        """Take the lines of former sessions. A file that cannot be read is taken for an empty one."""
        readline = _readline()
        if readline is None or self._path is None:
            return
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in _content(self._path).decode().splitlines():
                readline.add_history(line)

    def write(self) -> None:
        """Keep the last lines. What cannot be written is lost: no session ends in an error for its history."""
        readline = _readline()
        if readline is None or self._path is None:
            return
        count = readline.get_current_history_length()
        lines = [readline.get_history_item(number) for number in range(max(1, count - KEPT + 1), count + 1)]
        with contextlib.suppress(OSError, UnicodeEncodeError):
            _write(self._path, "".join(f"{line}\n" for line in lines if line).encode())


def history_file(name: str) -> Path | None:
    """Return the file of a command's history; None if the user has no home."""
    folder = state_folder()
    return None if folder is None else folder / name


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Python can be built without it
        return None
    return readline


def _content(path: Path) -> bytes:
    """Read a regular file, which is not a link.

    Raises:
        OSError: it is not there, or something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
        return file.read(_MOST_BYTES)


def _write(path: Path, content: bytes) -> None:
    """Replace the file, or make it.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = open_own(temporary, os.O_WRONLY | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
