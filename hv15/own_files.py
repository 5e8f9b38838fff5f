"""Files that are kept open or added to: locks, metrics, events. What is written once goes through hv15.atomic."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def open_own(path: Path, flags: int) -> int:
    """Open or make a file for writing and return its descriptor, which children do not inherit.

    A link is refused, because it may lead out of the project to somebody else's file. Opening a pipe does not wait.

    Args:
        path: the file.
        flags: of os.open, such as os.O_RDWR; the file is made if it is not there.

    Raises:
        OSError: as the system says, or it is a link.
    """
    try:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from None
        raise


def cure(error: OSError, otherwise: str) -> str:
    """What to do after an error of `open_own`: a link is to be removed, and for all else there is `otherwise`."""
    return "remove the link" if error.errno == errno.ELOOP else otherwise


def lock_own(path: Path) -> int | None:
    """Open or make a file and lock it for this process, until the descriptor that is returned is closed.

    Return None if another process has locked it.

    Raises:
        OSError: as `open_own`, or the file system has no locks.
    """
    import fcntl  # other systems do not have it

    descriptor = open_own(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def text_if_locked(path: Path) -> str | None:
    """Return the text of a file that a process has locked (`lock_own`); None if none has, or it cannot be looked at."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
    except OSError:  # a file system without locks
        return None
    else:
        return None
    finally:
        os.close(descriptor)
