"""The official sizes of videos: a named resolution and an aspect ratio give height and width."""

from __future__ import annotations

from functools import lru_cache
from typing import get_args

from hv15.choices import EnlargedResolution, Resolution
from hv15.errors import UserError
from hv15.grid import PIXELS_PER_CELL
from hv15.models.super_resolution import SUPER_RESOLUTIONS

BASES: dict[Resolution, int] = {"360p": 480, "480p": 640, "720p": 960, "1080p": 1440}
"""The side of a square video of each resolution, in pixels."""
MOST_ASPECT = 4.0
"""The largest ratio of the sides of an official size."""


@lru_cache(maxsize=len(BASES))
def official_sizes(resolution: Resolution) -> tuple[tuple[int, int], ...]:
    """Return all (height, width) of a resolution, tall ones first.

    They are the largest that have at most as many latent cells as the square: from one column on, a column is added
    while the number of cells allows it, else a row is taken away. From the official program.
    """
    cells = (BASES[resolution] // PIXELS_PER_CELL) ** 2
    rows, columns, sizes = cells, 1, []
    while rows:
        if max(rows, columns) <= MOST_ASPECT * min(rows, columns):
            sizes.append((rows * PIXELS_PER_CELL, columns * PIXELS_PER_CELL))
        if rows * (columns + 1) <= cells:
            columns += 1
        else:
            rows -= 1
    return tuple(sizes)


def official_size(resolution: Resolution, width: float, height: float) -> tuple[int, int]:
    """Return the (height, width) of a resolution whose aspect ratio is nearest to `width:height`.

    Of two that are as near, the taller one, as in the official program.

    Raises:
        ValueError: a side is not positive.
    """
    if not (width > 0 and height > 0):
        raise ValueError(f"{width}:{height}")
    return min(official_sizes(resolution), key=lambda size: abs(size[0] / size[1] - height / width))


def is_official_size(height: int, width: int, resolution: Resolution) -> bool:
    """Whether videos of this height and width are among the official sizes of a resolution."""
    return (height, width) in official_sizes(resolution)


def enlarged_size(height: int, width: int, resolution: EnlargedResolution) -> tuple[int, int]:
    """Return the (height, width) to which super resolution enlarges a video of this size.

    For an official size of the lower resolution: the size of the higher one with the nearest ratio of width to height;
    of two that are as near, the wider one, as in the official program. Any other size grows by as much as a square
    does, to the nearest multiples of 16; the official program refuses it.
    """
    low = SUPER_RESOLUTIONS[resolution].low
    if is_official_size(height, width, low):
        sizes = reversed(official_sizes(resolution))
        return min(sizes, key=lambda size: abs(size[1] / size[0] - width / height))
    growth = BASES[resolution] / BASES[low]
    rows, columns = (max(1, round(side * growth / PIXELS_PER_CELL)) for side in (height, width))
    return rows * PIXELS_PER_CELL, columns * PIXELS_PER_CELL


def parse_size(words: tuple[str, ...], typed: str = "--size") -> tuple[int, int]:
    """Read a size from the words of a command line: `720p 16:9`, `480p` (16:9), or `480 848` (height and width).

    Args:
        typed: what stood before them.

    Raises:
        UserError: it is none of these.
    """
    names = get_args(Resolution)
    if words and words[0] in BASES and len(words) <= 2:
        wide, _, high = (words[1] if len(words) == 2 else "16:9").partition(":")
        if (width := _whole(wide)) and (height := _whole(high)):
            if max(width, height) > MOST_ASPECT * min(width, height):
                raise UserError(
                    f"{typed} {' '.join(words):.60}: official sizes have an aspect ratio of at most {MOST_ASPECT:g}:1",
                    hint=f"choose such a ratio, or give height and width in pixels: {typed} 256 1280",
                )
            return official_size(words[0], width, height)
    elif len(words) == 2 and (height := _whole(words[0])) and (width := _whole(words[1])):
        return height, width
    examples = (f"{typed} {example}".strip() for example in ("720p 16:9", "480 848"))
    raise UserError(
        f"{typed} {' '.join(words):.60}: expected a resolution ({', '.join(names)}) with or without an aspect ratio, "
        "or height and width in pixels",
        hint=f"for example {', or '.join(examples)}",
    )


def _whole(text: str) -> int:
    """Read a number of at most six digits; 0 if it is something else."""
    return int(text) if text.isdecimal() and len(text) <= 6 else 0
