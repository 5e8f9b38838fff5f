"""The one kind of error that a user can cause, and how it is shown."""

from __future__ import annotations

import os
from typing import Self

USER_ERROR = 2
"""Exit code for everything that a user can fix."""


class UserError(Exception):
    """Something a user can put right: shown without a traceback, exit code 2.

    `message` says where (file, or file:line:column), what was found and what was expected; `hint` says what to do.
    `place` is the file or file:line:column by itself, where the error is about one.
    """

    def __init__(self, message: str, *, hint: str = "", place: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place

    @classmethod
    def at(cls, place: object, found: str, *, hint: str = "") -> Self:
        """Return the error about a file, a folder or a line: its message begins with that."""
        return cls(f"{place}: {found}", hint=hint, place=str(place))

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


def of_the_system(error: OSError) -> UserError:
    """Return the system's error about one of the user's paths as a `UserError`; `error.filename` must be set."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return UserError(
        f"{name}: {error.strerror or error}", hint="check the path, its permissions and the disk", place=name
    )
