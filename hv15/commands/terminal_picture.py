"""Pictures in a terminal, as half blocks: each cell shows two pixels, one above the other."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

import numpy as np
from PIL import Image

from hv15.data.pixels import Pixels
from hv15.terminal_text import CleanStream

LINES = 16
"""Most lines that a picture takes."""
SHOWN = 3
"""Frames of a video that are shown, side by side."""
_BLOCK, _PLAIN = "▀", "\x1b[0m"
_EXACT = ("truecolor", "24bit")
"""What COLORTERM says of terminals with 24-bit colors."""


def show_frames(frames: Pixels, label: str, stream: TextIO | None = None) -> None:
    """Draw some frames of a video, uint8 [F, H, W, 3], on stderr; nothing if that is no terminal with colors.

    Args:
        label: a line above them, which is cut where the terminal ends.
    """
    stream = stream or sys.stderr
    if not has_colors(stream):
        return
    if isinstance(stream, CleanStream):
        stream = stream.raw
    places = np.linspace(0, len(frames) - 1, min(SHOWN, len(frames))).round().astype(int)
    columns = shutil.get_terminal_size().columns
    lines = half_blocks([frames[place] for place in places], columns, exact=os.environ.get("COLORTERM") in _EXACT)
    title = label if len(label) <= columns else f"{label[: max(columns - 3, 0)]}..."
    with suppress(OSError):  # the terminal is gone: what is shown there must not end the work
        # What stands in the line, such as a bar, is wiped; it is drawn again below the picture.
        stream.write(f"\r\x1b[2K{title}\n" + "".join(f"{line}{_PLAIN}\n" for line in lines))
        stream.flush()


def has_colors(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colors, and its user wants them."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def half_blocks(frames: Sequence[Pixels], columns: int, *, exact: bool) -> list[str]:
    """Draw frames of one size, uint8 [H, W, 3], side by side as lines of at most `columns` cells.

    Args:
        exact: with 24-bit colors; else with the 216 that nearly all terminals know.
    """
    height, width = frames[0].shape[:2]
    most = max(1, (columns + 1) // len(frames) - 1)  # a cell between two
    scale = min(most / width, 2 * LINES / height, 1.0)
    size = max(1, round(width * scale)), 2 * max(1, round(height * scale / 2))  # PIL's order
    small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames]
    color = _exact_color if exact else _cube_color
    return [
        f"{_PLAIN} ".join(_line(frame[row], frame[row + 1], color) for frame in small) for row in range(0, size[1], 2)
    ]


def _line(upper: Pixels, lower: Pixels, color: Callable[[int, int, int], str]) -> str:
    """Draw two rows of pixels, uint8 [W, 3] each."""
    parts, before = [], ""
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        colors = f"\x1b[38;{color(*above)};48;{color(*below)}m"
        parts.append(_BLOCK if colors == before else colors + _BLOCK)
        before = colors
    return "".join(parts)


def _exact_color(red: int, green: int, blue: int) -> str:
    return f"2;{red};{green};{blue}"


def _cube_color(red: int, green: int, blue: int) -> str:
    """The nearest color of the cube of 6 x 6 x 6, which has levels 0, 95, 135, 175, 215 and 255."""
    place = [0 if level < 48 else 1 if level < 115 else (level - 35) // 40 for level in (red, green, blue)]
    return f"5;{16 + 36 * place[0] + 6 * place[1] + place[2]}"
