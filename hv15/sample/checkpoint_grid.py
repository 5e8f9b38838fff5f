"""The samples of all checkpoints side by side: a row for each prompt, a column for each step.

All samples of a row begin from the same noise, so what differs between them is what the LoRA learned in between.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hv15.data.pixels import Pixels
from hv15.errors import UserError
from hv15.sample.contact_sheet import GAP, INK, LINE, MARGIN, PAPER, read_sample, strip

FRAMES = 3
"""Number of frames of a clip on the sheet, evenly spaced from the first to the last."""
NARROWEST = 128
"""Pixels of a column of the video: below, labels would not fit."""
WIDEST, HIGHEST = 2560, 1440
"""Pixels of the video, as far as its columns are not `NARROWEST`."""

_HEAD = LINE + GAP // 2  # pixels of the labels


@dataclass(frozen=True)
class GridLine:
    """One prompt, with its clips from left to right."""

    prompt: str
    clips: tuple[Pixels, ...]
    """Each uint8 RGB [F, H, W, 3], of one size."""
    fps: float


def film_scale(sizes: Sequence[tuple[int, int]], columns: int) -> float:
    """Return by which factor clips are resized so that all fit into one video.

    Args:
        sizes: (height, width) in pixels of the clips of each row.
    """
    wide, high = max(width for _, width in sizes), sum(height for height, _ in sizes)
    room = (WIDEST - 2 * MARGIN) / columns - GAP, HIGHEST - 2 * MARGIN - len(sizes) * (LINE + GAP) - _HEAD
    fitting = min(room[0] / wide, max(room[1], 1) / high)
    return max(NARROWEST / wide, min(1.0, fitting))


def read_line(prompt: str, files: Iterable[Path], fps: float, scale: float) -> GridLine:
    """Read the samples of a prompt and resize them.

    Raises:
        UserError: one is missing or damaged, or they have different sizes.
    """
    clips = tuple(_resized(read_sample(file), scale) for file in files)
    if len({clip.shape[1:] for clip in clips}) > 1:
        raise UserError(f"samples of different sizes: {prompt}", hint="start the run again, which samples them again")
    return GridLine(prompt, clips, fps)


def draw_grid(lines: Sequence[GridLine], labels: Sequence[str]) -> Pixels:
    """Draw a sheet with a few frames of each clip: uint8 RGB [H, W, 3].

    Args:
        labels: of the columns.
    """
    strips = [[strip(clip, FRAMES) for clip in line.clips] for line in lines]
    return _table([line.prompt for line in lines], labels, strips)


def draw_film(lines: Sequence[GridLine], labels: Sequence[str]) -> tuple[Pixels, float]:
    """Draw the video in which all clips play together: uint8 RGB [F, H, W, 3] with even sides, frames per second.

    A clip that ends earlier stands still on its last frame.

    Args:
        labels: of the columns.
    """
    fps = max(line.fps for line in lines)
    seconds = max(len(clip) / line.fps for line in lines for clip in line.clips)
    moments = [number / fps for number in range(max(1, round(seconds * fps)))]
    prompts = [line.prompt for line in lines]
    first = _table(prompts, labels, _at(lines, 0.0))
    film = np.empty((len(moments), *(side + side % 2 for side in first.shape[:2]), 3), np.uint8)
    film[:] = PAPER
    for number, moment in enumerate(moments):
        film[number, : first.shape[0], : first.shape[1]] = _table(prompts, labels, _at(lines, moment))
    return film, fps


def _at(lines: Iterable[GridLine], moment: float) -> list[list[Image.Image]]:
    """The frames that are shown at a moment, in seconds."""
    return [
        [Image.fromarray(clip[min(math.floor(moment * line.fps + 1e-6), len(clip) - 1)]) for clip in line.clips]
        for line in lines
    ]


def _table(prompts: Sequence[str], labels: Sequence[str], cells: Sequence[Sequence[Image.Image]]) -> Pixels:
    """Draw a table of pictures: labels above its columns, and above each row its prompt. Uint8 RGB [H, W, 3]."""
    font = ImageFont.load_default(13)
    wide = [max(row[column].width for row in cells) for column in range(len(labels))]
    wide = [max(width, math.ceil(font.getlength(label))) for width, label in zip(wide, labels, strict=True)]
    lefts = [MARGIN + sum(wide[:column]) + column * GAP for column in range(len(labels))]
    width = lefts[-1] + wide[-1] + MARGIN
    high = [max(picture.height for picture in row) for row in cells]
    table = Image.new("RGB", (width, 2 * MARGIN + _HEAD + sum(LINE + height + GAP for height in high) - GAP), PAPER)
    pen = ImageDraw.Draw(table)
    for left, label in zip(lefts, labels, strict=True):
        pen.text((left, MARGIN), label, fill=INK, font=font)
    top = MARGIN + _HEAD
    for prompt, row, height in zip(prompts, cells, high, strict=True):
        pen.text((MARGIN, top), _cut(prompt, font, width - 2 * MARGIN), fill=INK, font=font)
        for left, picture in zip(lefts, row, strict=True):
            table.paste(picture, (left, top + LINE))
        top += LINE + height + GAP
    return np.asarray(table)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a line of text to a width in pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line

    def length(count: int) -> float:
        return font.getlength(f"{line[:count]}...")

    fitting = bisect_right(range(len(line)), float(width), key=length)
    return f"{line[: max(0, fitting - 1)]}..."


def _resized(clip: Pixels, scale: float) -> Pixels:
    height, width = (max(1, round(side * scale)) for side in clip.shape[1:3])
    if (height, width) == clip.shape[1:3]:
        return clip
    frames = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in clip)
    return np.stack([np.asarray(frame) for frame in frames])
