"""What happens when a command's output cannot be written: its reader is gone, the disk is full, it was closed."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from hv15.errors import USER_ERROR

UNREAD = 141
"""Exit code of a stage whose reader is gone: what a shell reports for a program that SIGPIPE ended."""

_OF_OUTPUT = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}
"""Errors of writing. An error with another number, or with the name of a file, is not about the output."""


class Main(Protocol):
    """A program."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def with_flushed_output(main: Main) -> Main:
    """Make a program flush its output before it ends, and report in one sentence if that fails."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            code = main(arguments)
            flush()
        except BrokenPipeError:  # the reader is gone, as in hv15 show FILE | head
            drop_output()
            return 0
        except SystemExit as end:
            try:
                flush()
            except OSError as error:
                code = _report(error)
                if not end.code:  # a failure or a stop says more
                    return code
            raise
        except OSError as error:
            if error.filename is not None or error.errno not in _OF_OUTPUT:
                raise  # about something else
            return _report(error)
        return code

    return run


def flush() -> None:
    """Write what is still buffered.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is not None:  # None: it was closed before the program began
        sys.stdout.flush()


def drop_output() -> None:
    """Discard what cannot be written, so that Python does not try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(error: OSError) -> int:
    drop_output()
    if isinstance(error, BrokenPipeError):
        return 0
    print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
    return USER_ERROR
