"""The project's lock: held by the one run that is alive, freed by the kernel when its last holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from hv15.errors import UserError
from hv15.own_files import cure, open_own, text_if_locked
from hv15.records.paths import ProjectPaths

PROBE_S = 0.02
"""How long to wait for a process that only looks whether the lock is free."""


def take(root: Path, run_id: str, *, attempts: int = 25) -> int | None:
    """Lock the project for a run and return the open file descriptor; None when another run has it.

    A process that inherits the descriptor holds the lock, too.

    Raises:
        UserError: the lock file cannot be made.
    """
    path = ProjectPaths(root).lock
    try:
        path.parent.mkdir(exist_ok=True)
        descriptor = open_own(path, os.O_RDWR)
    except OSError as error:
        hint = cure(error, "free some disk space, or change the folder's permissions")
        raise UserError.at(path, f"cannot be written: {error.strerror}", hint=hint) from error
    for _ in range(attempts):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # held by a run, or by a process that looks
            time.sleep(PROBE_S)
            continue
        except OSError as error:
            os.close(descriptor)
            raise UserError.at(path, f"cannot be locked: {error.strerror}") from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, run_id.encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise UserError.at(path, f"cannot be written: {error.strerror}", hint="free some disk space") from error
        return descriptor
    os.close(descriptor)
    return None


def holder(root: Path) -> str | None:
    """Return the id of the live run, "" if it has not written its id yet, None if there is none."""
    return text_if_locked(ProjectPaths(root).lock)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    return text_if_locked(path) is not None
