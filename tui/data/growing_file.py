"""A file that somebody else appends to: reads what is new, and notices when it was cut, replaced or taken away.

That the bytes before the offset are still those that were read is seen from the file's inode and from the last bytes
before remembered offsets. A training that goes on from a saved state cuts its metrics there and writes on: then all up
to the last remembered offset that still holds is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

PROOF = 64
"""Bytes before an offset that are compared."""

LONGEST_LINE = 64 << 20
"""A longer line is passed over. The plan of 10,000 jobs is a line of some megabytes."""


class GrowingFile:
    """Gives out whole lines. `offset` is the end of the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.size = 0
        """Bytes, when it was last looked at."""
        self.error = ""
        """Why nothing can be read; "" when all is well, also when there is no file yet."""
        self.passed_over = 0
        """Lines that were too long."""
        self._inode: tuple[int, int] | None = None
        self._marks: list[tuple[int, bytes]] = []
        self._in_long_line = False

    @property
    def complete(self) -> bool:
        """Whether everything was read that was there at the last look."""
        return self.offset >= self.size

    def still_valid(self) -> int:
        """Return up to which offset the file still holds what was read; `offset` itself when nothing went wrong.

        When it is less, the caller forgets what stood behind, and reading goes on from there.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self.error, self.size = "", 0
            return self._rewind(0)
        except OSError as error:  # forbidden, or the disk has gone: what is known stays
            self.error = f"{self.path}: cannot be read: {error.strerror}"
            return self.offset
        try:
            status = os.fstat(descriptor)
            self.error, self.size = "", status.st_size
            inode = (status.st_dev, status.st_ino)
            if self._inode not in (None, inode):
                self._inode = inode
                return self._rewind(0)
            self._inode = inode
            if not self._marks or self._holds(descriptor, self._marks[-1]):
                return self.offset
            kept = next((mark for mark in reversed(self._marks) if self._holds(descriptor, mark)), (0, b""))
            return self._rewind(kept[0])
        except OSError as error:
            self.error = f"{self.path}: cannot be read: {error.strerror}"
            return self.offset
        finally:
            os.close(descriptor)

    def read_lines(self, limit: int = 1 << 20) -> list[bytes]:
        """Return the whole lines among the next `limit` bytes, without their ends; [] when there is none yet."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            while True:
                data = os.pread(descriptor, limit, self.offset)
                if len(data) == limit < LONGEST_LINE and not self._in_long_line and b"\n" not in data:
                    limit = min(4 * limit, LONGEST_LINE)
                    continue
                lines, taken, found = self._split(data, limit)
                if taken:
                    self.offset += taken
                    self._mark(data[:taken])
                if found or not taken:
                    return lines
        except OSError as error:
            self.error = f"{self.path}: cannot be read: {error.strerror}"
            return []
        finally:
            os.close(descriptor)

    def _split(self, data: bytes, limit: int) -> tuple[list[bytes], int, bool]:
        """The whole lines in `data`, how many bytes of it are done with, and whether that is all for now."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            if len(data) < limit and not self._in_long_line:
                return [], 0, True
            if not self._in_long_line:
                self.passed_over += 1
            self._in_long_line = True
            return [], len(data), not data
        lines = data[: end - 1].split(b"\n")
        if self._in_long_line:
            self._in_long_line = False
            lines = lines[1:]
        return lines, end, bool(lines)

    def _mark(self, data: bytes) -> None:
        before = self._marks[-1][1] if self._marks else b""
        self._marks.append((self.offset, (before + data)[-PROOF:] if len(data) < PROOF else data[-PROOF:]))
        if len(self._marks) > 4096:  # a file that grows line by line: keep the newest, thin out the rest
            self._marks = self._marks[:-1024:2] + self._marks[-1024:]

    def _holds(self, descriptor: int, mark: tuple[int, bytes]) -> bool:
        offset, proof = mark
        return os.pread(descriptor, len(proof), offset - len(proof)) == proof

    def _rewind(self, offset: int) -> int:
        self.offset = offset
        self._in_long_line = False
        self._marks = [mark for mark in self._marks if mark[0] <= offset]
        if offset == 0:
            self._inode = None
        return offset
