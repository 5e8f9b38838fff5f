"""What a view of a log needs of it: blocks of lines, as the log and a filter are at some moment."""

from __future__ import annotations

from dataclasses import dataclass

from tui.data.log_file import LogFile, LogFilter

BLOCK = 200
"""Lines that are read at once."""

Block = list[tuple[int, str]]
"""Lines with their numbers in the file, from 0."""


@dataclass(frozen=True)
class LogState:
    """What was found in a log, or in the lines of it that match."""

    lines: int
    bytes: int
    generation: int
    complete: bool
    error: str
    tail: list[str] | None = None
    """The last lines of a file that is not indexed yet."""
    blocks: tuple[tuple[int, Block], ...] = ()
    """Blocks that were read at the same time."""


def read_state(log: LogFile, kept: LogFilter | None, before: LogState, ends: int) -> LogState:
    """Read on in a log, and in what a filter keeps of it.

    Args:
        before: the state at the last call.
        ends: number of lines at the end that are on the screen.
    """
    log.refresh()
    complete, lines, tail = log.complete, log.lines, None
    if kept is not None:
        kept.advance()
        complete, lines = complete and kept.complete, kept.lines
    elif not complete and ends:
        tail = log.tail(2 * ends)
    blocks = []
    if tail is None and (lines, log.generation) != (before.lines, before.generation) and ends:
        blocks = [(number, read_block(log, kept, number)) for number in _numbers(max(0, lines - ends), lines)]
    error = log.error or (kept.error if kept is not None else "")
    return LogState(lines, log.size, log.generation, complete, error, tail, tuple(blocks))


def read_block(log: LogFile, kept: LogFilter | None, number: int) -> Block:
    """Read a block by its number, of the log or of what a filter keeps of it."""
    first = number * BLOCK
    if kept is not None:
        return kept.block(first, BLOCK)
    return list(enumerate(log.block(first, BLOCK), start=first))


def _numbers(first: int, end: int) -> range:
    """The blocks with lines from `first` to before `end`."""
    return range(first // BLOCK, max(first, end - 1) // BLOCK + 1)
