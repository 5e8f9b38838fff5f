"""What happens when a command's output cannot be written: its reader is gone, the disk is full, it was closed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import Protocol

USER_ERROR = 2


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
        except SystemExit:
            try:
                flush()
            except OSError as error:
                return _report(error)
            raise
        except OSError as error:
            if error.filename is not None or _can_write():
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


def _can_write() -> bool:
    try:
        flush()
        os.write(1, b"\n")
    except OSError:
        return False
    return True


def _report(error: OSError) -> int:
    drop_output()
    if isinstance(error, BrokenPipeError):
        return 0
    print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
    return USER_ERROR
