"""Pictures drawn as half blocks: a cell of the terminal shows two pixels, one above the other."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Pixels = NDArray[np.uint8]


def half_blocks(frame: Pixels) -> list[Strip]:
    """Draw pixels [2R, W, 3] as R lines of half blocks; neighbours of one colour become one segment.

    Colours are rounded to 64 levels a channel: nobody sees it, and less is sent over SSH.
    """
    if len(frame) % 2:
        frame = np.concatenate([frame, frame[-1:]])
    rounded = (frame & 0xFC).astype(np.int64)
    codes = (rounded[..., 0] << 16) | (rounded[..., 1] << 8) | rounded[..., 2]
    pairs = (codes[0::2] << 24) | codes[1::2]  # (R, W)
    width = pairs.shape[1]
    strips = []
    for row in pairs:
        starts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), width]
        segments = [_segment(int(row[start]), end - start) for start, end in pairwise(starts)]
        strips.append(Strip(segments, width))
    return strips


def _segment(pair: int, count: int) -> Segment:
    upper, lower = pair >> 24, pair & 0xFFFFFF
    return Segment((" " if upper == lower else "▀") * count, _style(upper, lower))


@lru_cache(16384)
def _style(upper: int, lower: int) -> Style:
    return Style.from_color(None if upper == lower else _color(upper), _color(lower))


def _color(code: int) -> Color:
    return Color.from_triplet(ColorTriplet(code >> 16, code >> 8 & 0xFF, code & 0xFF))
