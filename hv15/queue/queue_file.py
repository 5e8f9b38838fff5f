"""The file of the queue: where it is, and how several programs change it without losing anything."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from hv15.atomic import write_json
from hv15.errors import UserError
from hv15.own_files import cure, open_own
from hv15.records.json_values import RecordError, parse_object
from hv15.records.queue import Queue, read_queue
from hv15.user_folders import state_folder

VARIABLE = "HV15_QUEUE"
"""The environment variable that names the folder of another queue."""
LOCK_S = 20.0
"""A change takes milliseconds; whoever holds the lock for so long hangs."""
POLL_S = 0.01


def queue_folder() -> Path:
    """Return the folder of this user's queue on this machine; it need not exist.

    Machines that share a home folder have queues of their own.

    Raises:
        UserError: the user has no home folder.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    folder = state_folder()
    if folder is None:
        raise UserError("the user has no home folder to keep the queue in", hint=f"set {VARIABLE} to a folder")
    return folder / "queue" / socket.gethostname()


class QueueFile:
    """The queue in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else queue_folder()

    @property
    def path(self) -> Path:
        return self.folder / "queue.json"

    @property
    def lock(self) -> Path:
        return self.folder / "queue.lock"

    @property
    def worker_lock(self) -> Path:
        return self.folder / "worker.lock"

    @property
    def worker_log(self) -> Path:
        return self.folder / "worker.log"

    def read(self) -> Queue:
        """Return the queue; an empty one if there is none yet.

        Raises:
            UserError: it cannot be read, is damaged, or is of a newer version.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Queue()
        except OSError as error:
            hint = f"change its permissions, or set {VARIABLE} to another folder"
            raise UserError.at(self.path, f"cannot be read: {error.strerror or error}", hint=hint) from error
        try:
            return read_queue(parse_object(content))
        except RecordError as error:
            hint = "move it to another place; the queue is then empty, and the projects can be added again"
            raise UserError.at(self.path, f"the queue cannot be used: {error}", hint=hint) from error

    def change(self, change: Callable[[Queue], Queue]) -> Queue:
        """Replace the queue by what `change` makes of it, while nobody else changes it; return the new one.

        Raises:
            UserError: it cannot be read or written, or somebody else does not let go of it; or as `change`.
        """
        descriptor = self.take_lock()
        try:
            before = self.read()
            after = change(before)
            if after != before:
                write_json(self.path, after.as_json())
            return after
        finally:
            os.close(descriptor)

    def take_lock(self) -> int:
        """Wait until nobody changes the queue, and keep others from it until the descriptor is closed.

        Raises:
            UserError: the lock cannot be had.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = open_own(self.lock, os.O_RDWR)
        except OSError as error:
            hint = cure(error, f"free some disk space, or set {VARIABLE} to a folder that can be written")
            raise UserError.at(self.lock, f"cannot be written: {error.strerror or error}", hint=hint) from error
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                os.close(descriptor)
                raise UserError.at(
                    self.lock, f"another program has held the queue for {LOCK_S:.0f} s", hint="try again"
                ) from None
            except OSError as error:
                os.close(descriptor)
                hint = f"set {VARIABLE} to a folder on a disk that has locks"
                raise UserError.at(self.lock, f"cannot be locked: {error.strerror or error}", hint=hint) from error
            return descriptor
