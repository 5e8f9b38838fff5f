"""A log of any size: its lines are indexed in the background, and only those on the screen are read.

The index has the place of a line at least every 256 KiB, so that 1 GB needs some ten thousand places, and a block is
found by one short read. A line of hundreds of megabytes (a progress bar without line ends) is read at its two ends.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hv15.patterns import PatternError
from hv15.records.paths import ProjectPaths
from hv15.runs.followed_file import CHUNK, FollowedFile, end_of
from hv15.runs.record import history
from hv15.terminal_text import ESCAPES, clean
from tui.data.patterns import SearchPattern, search_pattern

if TYPE_CHECKING:
    from tui.data.jobs import Job

SPACING = 256 << 10
"""Bytes after which the place of the next line is remembered."""
LINES = 1000
"""Lines after which it is remembered in any case."""
TAIL_STEP, TAIL = 64 << 10, 4 << 20
"""How many bytes of the end are read at first, and at most."""
MOST_LOGS = 2000
EDGE = 20 << 10
"""Bytes that are read at each end of a line that is longer than `SPACING`."""


class LogFile:
    """One log. `refresh` belongs to a worker; `block`, `tail` and `search` may be called from any other thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        """Increases when the file was truncated or replaced: what was shown is no longer there."""
        self._file = FollowedFile(path)
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._newlines = 0
        self.has_open_line = False
        """Whether the last line has no end yet."""
        self._places = array("Q", [0])
        self._numbers = array("Q", [0])
        self._since = 0  # lines since the last place

    @property
    def error(self) -> str:
        return self._file.error

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.size

    @property
    def lines(self) -> int:
        """Lines that are known so far, the unfinished last one among them."""
        return self._newlines + self.has_open_line

    @property
    def complete(self) -> bool:
        return self._file.complete

    # -- indexing ---------------------------------------------------------------------------------------------------

    def refresh(self, budget_s: float = 0.1) -> bool:
        """Continue indexing, for about `budget_s` seconds at most; return whether anything changed."""
        deadline = time.perf_counter() + budget_s
        before = (self.lines, self.generation, self.error)
        with self._lock:
            if not self._file.check():
                self._file.restart()
                self._forget()
                self.generation += 1
        while data := self._file.read(CHUNK):
            with self._lock:
                self._take(data)
            if time.perf_counter() > deadline:
                break
        return before != (self.lines, self.generation, self.error)

    def _take(self, data: bytes) -> None:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + (self._file.offset + 1)
        first = 0
        while first < len(ends):
            # the next line to remember: after so many lines, or the first one so many bytes further
            by_count = first + LINES - 1 - self._since
            by_bytes = int(np.searchsorted(ends, self._places[-1] + SPACING))
            chosen = min(by_count, max(first, by_bytes))
            if chosen >= len(ends):
                break
            self._places.append(int(ends[chosen]))
            self._numbers.append(self._newlines + chosen + 1)
            self._since, first = 0, chosen + 1
        self._since += len(ends) - first
        self._newlines += len(ends)
        self.has_open_line = not data.endswith(b"\n")
        self._file.take(data)

    # -- reading lines ----------------------------------------------------------------------------------------------

    def block(self, first: int, count: int) -> list[str]:
        """Return cleaned lines; fewer at the end of the file, or if it was truncated meanwhile."""
        return [clean(line) for line in self.raw_lines(first, count)]

    def raw_lines(self, first: int, count: int) -> list[bytes]:
        """Return lines as they are, without line ends; of very long ones only the beginning and the end."""
        try:
            with self.path.open("rb", buffering=0) as file:
                return self._raw_lines(file.fileno(), max(0, first), count)
        except OSError:
            return []

    def _raw_lines(self, descriptor: int, first: int, count: int) -> list[bytes]:
        found: list[bytes] = []
        with self._lock:
            count = min(count, self.lines - first)
            place = bisect_right(self._numbers, first) - 1
            places, numbers = self._places, self._numbers
            indexed, generation = self._file.offset, self.generation
        while count > 0 and place < len(places) and generation == self.generation:
            start, number = places[place], numbers[place]
            end = places[place + 1] if place + 1 < len(places) else indexed
            lines = self._between(descriptor, start, end)
            found += lines[first - number : first - number + count]
            taken = len(lines[first - number : first - number + count])
            if not taken:
                break
            first, count, place = first + taken, count - taken, place + 1
        return found

    def _between(self, descriptor: int, start: int, end: int) -> list[bytes]:
        """The lines between two remembered places. Only the last of them can be long."""
        if end - start <= 2 * SPACING:
            data = os.pread(descriptor, end - start, start)
            return (data[:-1] if data.endswith(b"\n") else data).split(b"\n") if data else []
        head = os.pread(descriptor, SPACING + EDGE, start)
        *lines, long_start = head.split(b"\n")
        tail = os.pread(descriptor, EDGE, end - EDGE).removesuffix(b"\n")
        if b"\r" in tail:
            return [*lines, tail[tail.index(b"\r") :]]
        return [*lines, long_start[:EDGE]]

    def tail(self, count: int = 200) -> list[str]:
        """Return the last lines, from the last 4 MiB at most; it needs no index."""
        return tail(self.path, count)

    # -- searching --------------------------------------------------------------------------------------------------

    def search(
        self,
        pattern: str | SearchPattern,
        start: int,
        *,
        backwards: bool = False,
        cancel: threading.Event | None = None,
    ) -> int | None:
        """Return the first line from `start` on (or before it, backwards) that matches; None when there is none.

        Raises:
            PatternError: it takes too long.
        """
        compiled = search_pattern(pattern) if isinstance(pattern, str) else pattern
        if backwards:
            return self._search_backwards(compiled, start, cancel)
        return next(self.matches(compiled, start, cancel=cancel), None)

    def matches(
        self, pattern: SearchPattern, start: int = 0, *, end: int | None = None, cancel: threading.Event | None = None
    ) -> Iterator[int]:
        """Yield the numbers of matching lines, ascending.

        Raises:
            PatternError: it takes too long.
        """
        with self._lock:
            place = max(0, bisect_right(self._numbers, start) - 1)
            known, generation = len(self._places), self.generation
            last = self.lines if end is None else min(end, self.lines)
        try:
            with self.path.open("rb", buffering=0) as file:
                while place < known and self._numbers[place] < last and generation == self.generation:
                    if cancel is not None and cancel.is_set():
                        return
                    stop = self._places[place + 1] if place + 1 < known else self._file.offset
                    number = self._numbers[place]
                    for line in self._matches_between(file.fileno(), self._places[place], stop, number, pattern):
                        if start <= line < last:
                            yield line
                    place += 1
        except (OSError, IndexError):  # removed or truncated while it was searched
            return

    def _matches_between(
        self, descriptor: int, start: int, end: int, number: int, pattern: SearchPattern
    ) -> Iterator[int]:
        data = b"\n".join(self._between(descriptor, start, end))
        if b"\x1b" in data:
            data = ESCAPES.sub(b"", data)
        if pattern.needle is not None and pattern.needle not in data.lower():
            return
        line = position = 0
        while (match := pattern.find(data, position)) is not None:
            line += data.count(b"\n", position, match)
            begin = data.rfind(b"\n", 0, match) + 1
            end = data.find(b"\n", match)
            if pattern.is_in(clean(data[begin : len(data) if end < 0 else end])):
                yield number + line
            if end < 0:
                return
            line, position = line + 1, end + 1

    def _search_backwards(self, pattern: SearchPattern, start: int, cancel: threading.Event | None) -> int | None:
        with self._lock:
            place = bisect_right(self._numbers, max(0, min(start, self.lines - 1))) - 1
        end = min(start + 1, self.lines)
        while place >= 0 and not (cancel is not None and cancel.is_set()):
            found = list(self.matches(pattern, self._numbers[place], end=end, cancel=cancel))
            if found:
                return found[-1]
            end, place = self._numbers[place], place - 1
        return None


class LogFilter:
    """The lines of a log that match, found in the background and as the log grows."""

    def __init__(self, log: LogFile, pattern: str | SearchPattern, limit: int = 1_000_000) -> None:
        self.log, self.limit = log, limit
        self.pattern = search_pattern(pattern) if isinstance(pattern, str) else pattern
        self._found = array("Q")
        self._searched = 0
        self._generation = log.generation
        self.error = ""
        """Why the search failed; "" if it did not."""

    @property
    def lines(self) -> int:
        return len(self._found)

    @property
    def complete(self) -> bool:
        return bool(self.error) or self._searched >= self.log.lines or self.lines >= self.limit

    def advance(self, budget_s: float = 0.1, cancel: threading.Event | None = None) -> bool:
        """Continue the search, for about `budget_s` seconds at most; return whether anything changed."""
        deadline = time.perf_counter() + budget_s
        changed = self._generation != self.log.generation
        if changed:
            self._found, self._searched, self._generation = array("Q"), 0, self.log.generation
        while not self.complete and time.perf_counter() < deadline and not (cancel and cancel.is_set()):
            # The last line may still grow: it is searched again.
            upto = min(self._searched + 4 * LINES, self.log.lines)
            try:
                fresh = list(self.log.matches(self.pattern, self._searched, end=upto, cancel=cancel))
            except PatternError as error:
                self.error = str(error)
                return True
            while self._found and self._found[-1] >= self._searched:
                self._found.pop()
            self._found.extend(fresh)
            changed = changed or bool(fresh)
            if upto == self.log.lines:
                self._searched = upto if not self.log.has_open_line else max(0, upto - 1)
                break
            self._searched = upto
        return changed

    def block(self, first: int, count: int) -> list[tuple[int, str]]:
        """Return matching lines with their numbers."""
        numbers = self._found[first : first + count]
        return [(number, line) for number in numbers for line in self.log.block(number, 1)]


def tail(path: Path, count: int = 200) -> list[str]:
    """Return the last lines of a file, cleaned, from its last 4 MiB; [] when it cannot be read."""
    step = TAIL_STEP
    data, whole = end_of(path, step)
    while not whole and data.count(b"\n") <= count and step < TAIL:
        step *= 4
        data, whole = end_of(path, step)
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    if not whole and len(lines) > 1:
        lines = lines[1:]
    return [clean(line) for line in lines[-count:]]


def log_files(root: Path, jobs: Iterable[Job] = ()) -> list[tuple[str, Path]]:
    """Return (label, path) of all logs: what Snakemake printed in the last runs, and the logs of the jobs."""
    found = {run.output: f"run {run.id}" for run in history(root)[:20] if run.output.exists()}
    for job in jobs:
        found.update({root / name: job.name for name in job.log})
    try:
        for path in list(ProjectPaths(root).all_logs())[:MOST_LOGS]:
            found.setdefault(path, path.stem)
    except OSError:
        pass
    return [(label, path) for path, label in found.items()]
