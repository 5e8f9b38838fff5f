"""Claims on items, so that several workflows that fill one store at the same time do not encode an item twice.

A claim is an open file with a kernel lock, so it ends with its process, even after kill -9. Claims only save work: an
item is written to a temporary name and then renamed, so encoding it twice does no harm.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from hv15.own_files import lock_own

Job = TypeVar("Job")

POLL_S = 0.5
MOST = 64
"""Most claims in one round, since each is an open file."""


class Claims:
    """The claims of this process in one folder of the store; a context manager that releases them at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".claims"
        self._held: dict[str, int] = {}

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, key: str) -> bool:
        """Claim a key; return False if another process has claimed it."""
        path = self._folder / key
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = lock_own(path)
        except OSError:  # the file system does not support it: items may be encoded twice
            return True
        if descriptor is None:
            return False
        self._held[key] = descriptor
        return True

    def release(self) -> None:
        """Release all claims."""
        while self._held:
            key, descriptor = self._held.popitem()
            with contextlib.suppress(OSError):
                (self._folder / key).unlink(missing_ok=True)
            os.close(descriptor)
        with contextlib.suppress(OSError):  # others have claims
            self._folder.rmdir()


def rounds(
    jobs: Mapping[str, Job],
    claims: Claims,
    is_done: Callable[[str, Job], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Iterator[tuple[str, Job]]]:
    """Yield rounds of jobs that this process has claimed and that are not done yet, until all are done.

    A job that another process has claimed is tried again in the next round. Jobs of a round are claimed lazily, and
    released after the round: the caller must finish them before it asks for the next round.

    Args:
        is_done: whether another process has done a job before it was claimed here.
    """
    left = dict(jobs)
    while left:
        taken: list[str] = []
        yield _claimed(left, claims, is_done, taken)
        claims.release()
        for key in taken:
            del left[key]
        if left and not taken:
            sleep(POLL_S)


def _claimed(
    left: Mapping[str, Job], claims: Claims, is_done: Callable[[str, Job], bool], taken: list[str]
) -> Iterator[tuple[str, Job]]:
    for key, job in left.items():
        if len(taken) == MOST:
            return
        if claims.take(key):
            taken.append(key)
            if not is_done(key, job):
                yield key, job
