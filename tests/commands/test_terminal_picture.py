"""Pictures as half blocks: read back from what the terminal gets."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from hv15.commands.terminal_picture import LINES, half_blocks, show_frames
from hv15.data.pixels import Pixels

CELL = re.compile(r"\x1b\[38;([\d;]+?);48;([\d;]+?)m(▀+)|\x1b\[0m( ?)")
CUBE = (0, 95, 135, 175, 215, 255)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def color(code: str) -> tuple[int, ...]:
    kind, *numbers = map(int, code.split(";"))
    if kind == 2:
        return tuple(numbers)
    (number,) = numbers
    assert 16 <= number < 232
    return tuple(CUBE[(number - 16) // 6**power % 6] for power in (2, 1, 0))


def read_back(line: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The upper and lower color of each cell; a blank between two pictures is left out."""
    assert CELL.sub("", line) == ""
    return [(color(upper), color(lower)) for upper, lower, blocks, _ in CELL.findall(line) for _ in range(len(blocks))]


def picture() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_each_cell_shows_two_pixels() -> None:
    frame = picture()
    lines = half_blocks([frame], 80, exact=True)
    assert len(lines) == 3
    for row, line in enumerate(lines):
        assert read_back(line) == [
            (tuple(frame[2 * row, column]), tuple(frame[2 * row + 1, column])) for column in range(5)
        ]


def test_terminals_of_few_colors_get_the_nearest_of_the_cube() -> None:
    frame = picture()
    nearest = np.array(CUBE)[np.abs(frame[..., None].astype(int) - np.array(CUBE)).argmin(-1)]
    found = [read_back(line) for line in half_blocks([frame], 80, exact=False)]
    for row in range(3):
        for column in range(5):
            upper, lower = found[row][column]
            assert np.abs(np.subtract(upper, frame[2 * row, column].astype(int))).max() <= 48
            assert np.abs(np.subtract(upper, nearest[2 * row, column])).max() <= 40  # a tie may go either way
            assert np.abs(np.subtract(lower, nearest[2 * row + 1, column])).max() <= 40


@pytest.mark.parametrize("columns", [1, 7, 40, 200])
@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (1, 1), (31, 17)])
def test_frames_lie_side_by_side_and_fit(columns: int, size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), level, dtype=np.uint8) for level in (0, 128, 255)]
    lines = half_blocks(frames, columns, exact=True)
    assert 1 <= len(lines) <= LINES
    for line in lines:
        cells = read_back(line)
        assert len(cells) + 2 <= max(columns, 5)
        each = len(cells) // 3
        assert [upper[0] for upper, _ in cells] == [0] * each + [128] * each + [255] * each


def test_only_terminals_with_colors_get_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = picture()[None]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown, pipe = Terminal(), io.StringIO()
    show_frames(frames, "a cat", shown)
    show_frames(frames, "a cat", pipe)
    assert "a cat\n" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[0m\n")
    assert not pipe.getvalue()
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            silent = Terminal()
            show_frames(frames, "a cat", silent)
            assert not silent.getvalue()


def test_a_long_prompt_takes_one_line_and_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = Terminal()
    show_frames(picture()[None], "a cat, " * 100, shown)
    first = shown.getvalue().split("\n")[0]
    assert first == "\r\x1b[2K" + ("a cat, " * 100)[:37] + "..."

    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shown, "write", gone)
    show_frames(picture()[None], "a cat", shown)
