"""Blocks of a log and of what a filter keeps of it."""

from __future__ import annotations

from pathlib import Path

from tui.data.log_blocks import BLOCK, LogState, read_block, read_state
from tui.data.log_file import LogFile, LogFilter

EMPTY = LogState(0, 0, 0, False, "")


def test_the_end_that_is_followed_is_read_with_the_state(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {number}\n" for number in range(3 * BLOCK + 5)))
    log = LogFile(path)
    state = read_state(log, None, EMPTY, ends=10)
    assert (state.lines, state.complete, state.error) == (3 * BLOCK + 5, True, "")
    assert [number for number, _ in state.blocks] == [2, 3]
    assert dict(state.blocks)[3][-1] == (3 * BLOCK + 4, f"line {3 * BLOCK + 4}")
    assert read_state(log, None, state, ends=10).blocks == ()


def test_a_block_of_a_filter_has_the_numbers_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("a\nb\nab\nc\n")
    log = LogFile(path)
    kept = LogFilter(log, "a")
    state = read_state(log, kept, EMPTY, ends=0)
    assert (state.lines, state.complete, state.blocks) == (2, True, ())
    assert read_block(log, kept, 0) == [(0, "a"), (2, "ab")]
    assert read_block(log, None, 0) == [(0, "a"), (1, "b"), (2, "ab"), (3, "c")]
