"""The one kind of error that a user can cause, how it is shown, and exit codes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self

from hv15.terminal_text import one_line

USER_ERROR = 2
"""Exit code for everything that a user can fix."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell; a training that has saved its state exits with 3 instead."""


class UserError(Exception):
    """Something a user can put right: shown without a traceback, exit code 2.

    `message` says where (file, or file:line:column), what was found and what was expected; `hint` says what to do.
    `place` is the file or file:line:column by itself, where the error is about one.

    Each is one line, whatever names and values of others it quotes: a line end in a file name must not begin a line
    that looks like ours. Further lines of the message are given as `lines`.
    """

    def __init__(self, message: str, *, lines: Iterable[str] = (), hint: str = "", place: str = "") -> None:
        self.message = "\n".join(map(one_line, (message, *lines)))
        self.hint = one_line(hint)
        self.place = one_line(place)
        super().__init__(self.message)

    @classmethod
    def at(cls, place: object, found: str, *, lines: Iterable[str] = (), hint: str = "") -> Self:
        """Return the error about a file, a folder or a line: its message begins with that."""
        return cls(f"{place}: {found}", lines=lines, hint=hint, place=str(place))

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


def of_the_system(error: OSError) -> UserError:
    """Return the system's error about one of the user's paths as a `UserError`; `error.filename` must be set."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return UserError.at(name, str(error.strerror or error), hint="check the path, its permissions and the disk")
