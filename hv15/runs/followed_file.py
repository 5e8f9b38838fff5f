"""A file that another process appends to: reads what is new, and notices when it was truncated, replaced or removed.

The file's inode, and the last bytes before remembered offsets, show whether the bytes that were read are still there. A
training that resumes from a saved state truncates its metrics there and appends to them: then everything up to the last
remembered offset that still holds is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from hv15.own_files import open_own
from hv15.records.json_values import JsonObject, RecordError, parse_object

CHUNK = 1 << 20
PROOF = 512
"""Bytes before an offset that are compared: of most files of records, more than the last one."""
LONGEST_LINE = 64 << 20
"""A longer line is skipped. The plan of 10,000 jobs is a line of some megabytes."""
END = 64 << 10
"""Bytes at the end of a file that `last_objects` reads."""


class FollowedFile:
    """The bytes of a file, in order. `offset` is the end of those that were read and taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.size = 0
        """Bytes, when the file was last looked at."""
        self.error = ""
        """Why nothing can be read; "" when all is well or there is no file yet."""
        self._inode: tuple[int, int] | None = None
        self._proofs: list[tuple[int, bytes]] = []
        """Offsets, with the bytes before them."""

    @property
    def complete(self) -> bool:
        """Whether everything that was there at the last look has been taken."""
        return self.offset >= self.size

    @property
    def share(self) -> float:
        """How much of the file was taken, from 0 to 1."""
        return min(1.0, self.offset / self.size) if self.size else 1.0

    def check(self) -> bool:
        """Compare the file with what was taken from it; False if some of that is no longer there.

        Then `offset` has moved back: the caller drops what came after it, and reading continues from there.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self.error, self.size = "", 0
            return self._move_back(0)
        except OSError as error:  # forbidden, or the disk is gone: what is known stays
            return self._failed(error)
        try:
            status = os.fstat(descriptor)
            self.error, self.size = "", status.st_size
            inode = (status.st_dev, status.st_ino)
            replaced = self._inode not in (None, inode)
            self._inode = inode
            if replaced:
                return self._move_back(0)
            if not self._proofs or _holds(descriptor, self._proofs[-1]):
                return True
            return self._move_back(next((each[0] for each in reversed(self._proofs) if _holds(descriptor, each)), 0))
        except OSError as error:
            return self._failed(error)
        finally:
            os.close(descriptor)

    def read(self, limit: int = CHUNK) -> bytes:
        """Return the next bytes, at most `limit`, without taking them; b"" at the end or when nothing can be read."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, limit, self.offset)
        except OSError as error:
            self._failed(error)
            return b""
        finally:
            os.close(descriptor)

    def take(self, data: bytes) -> None:
        """Mark bytes that `read` returned as processed."""
        self.offset += len(data)
        before = self._proofs[-1][1] if self._proofs else b""
        self._proofs.append((self.offset, (before + data)[-PROOF:] if len(data) < PROOF else data[-PROOF:]))
        if len(self._proofs) > 4096:  # a file that grows line by line: keep the newest, thin out the rest
            self._proofs = self._proofs[:-1024:2] + self._proofs[-1024:]

    def restart(self) -> None:
        """Start again from the beginning of the file."""
        self._move_back(0)

    def _move_back(self, offset: int) -> bool:
        moved = offset < self.offset
        self.offset = offset
        self._proofs = [proof for proof in self._proofs if proof[0] <= offset]
        if offset == 0 and not self.size:
            self._inode = None
        return not moved

    def _failed(self, error: OSError) -> bool:
        self.error = f"{self.path}: cannot be read: {error.strerror}"
        return True


def _holds(descriptor: int, proof: tuple[int, bytes]) -> bool:
    offset, data = proof
    return os.pread(descriptor, len(data), offset - len(data)) == data


class FollowedLines(FollowedFile):
    """The whole lines of a file, in order. `offset` is the end of the last one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._in_long_line = False

    def read_lines(self, limit: int = CHUNK) -> list[bytes]:
        """Return the whole lines among the next `limit` bytes, without their ends; [] when there is none yet."""
        while True:
            data = self.read(limit)
            if len(data) == limit < LONGEST_LINE and not self._in_long_line and b"\n" not in data:
                limit = min(4 * limit, LONGEST_LINE)
                continue
            lines, taken = self._split(data, limit)
            if taken:
                self.take(data[:taken])
            if lines or not taken:
                return lines

    def _split(self, data: bytes, limit: int) -> tuple[list[bytes], int]:
        """The whole lines in `data`, and how many of its bytes are processed."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            if len(data) < limit and not self._in_long_line:
                return [], 0
            self._in_long_line = True
            return [], len(data)
        lines = data[: end - 1].split(b"\n")
        if self._in_long_line:
            self._in_long_line = False
            lines = lines[1:]
        return lines, end

    def _move_back(self, offset: int) -> bool:
        self._in_long_line = False
        return super()._move_back(offset)


def end_of(path: Path, size: int) -> tuple[bytes, bool]:
    """Return the last bytes of a file, and whether these are all of it; b"" when it cannot be read."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            return file.read(size), length <= size
    except OSError:
        return b"", True


def last_objects(path: Path, size: int = END) -> Iterator[JsonObject]:
    """Yield the whole JSON objects among the last bytes of a file of such lines, oldest first."""
    data, _ = end_of(path, size)
    for line in data.split(b"\n"):
        try:
            yield parse_object(line)
        except RecordError:
            continue


def append_object(path: Path, content: JsonObject) -> None:
    """Append one line of JSON in one write, so that lines of several writers do not mix.

    A nearly full disk accepts part of a line without an error; writing the rest then raises. The next line that is
    appended starts on a line of its own after that part.

    Raises:
        OSError: as the system says.
    """
    line = json.dumps(content, ensure_ascii=False) + "\n"
    descriptor = open_own(path, os.O_RDWR | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        rest = memoryview(("\n" * torn + line).encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)
