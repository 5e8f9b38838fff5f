"""The contact sheet: a row for each prompt with a few frames, without and with the trained LoRA side by side.

Of a sample that super resolution has made larger, a second line shows the middle of these frames at full size, before
and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hv15.data.decode import VideoReader
from hv15.data.images import read_image
from hv15.data.media import frame_files
from hv15.data.pixels import Fitter, Pixels
from hv15.data.probe import probe
from hv15.errors import UserError

FRAMES_PER_CLIP = 4
"""Number of frames of a clip on the sheet, evenly spaced from the first to the last."""
WITHOUT, WITH = "without the LoRA", "with the LoRA"
DETAIL = 160
"""Side, in pixels, of the middle of a frame that is shown at full size."""

_HEIGHT = 96  # pixels of a frame on the sheet
LINE, MARGIN, GAP = 18, 8, 12
"""Pixels of a line of text, of the edge, and between pictures."""
PAPER, INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class SheetRow:
    """One prompt on the sheet, with its clips, uint8 RGB [F, H, W, 3]."""

    prompt: str
    with_lora: Pixels
    without: Pixels | None = None
    """The clip from the same noise without the trained LoRA."""
    title: str = ""
    """What stands over the row, if it is not the prompt."""
    enlarged: Pixels | None = None
    """The clip that super resolution has made of the one with the LoRA, or a few frames of it (`read_few`)."""

    @property
    def clips(self) -> list[tuple[str, Pixels]]:
        """The clips, uint8 [F, H, W, 3], from left to right, each with its label."""
        if self.without is None:
            return [(WITH, self.with_lora)]
        return [(WITHOUT, self.without), (WITH, self.with_lora)]

    @property
    def details(self) -> list[tuple[str, Pixels]]:
        """The middle of a few frames before and after super resolution, at the large size, each with its label.

        Each is uint8 [F, H, W, 3].
        """
        if self.enlarged is None:
            return []
        after = few_frames(self.enlarged)
        height, width = after.shape[1:3]
        before = np.stack([_resized(frame, height, width) for frame in few_frames(self.with_lora)])
        small = "{1}x{0}".format(*self.with_lora.shape[1:3])
        return [
            (f"{small}, enlarged without a model", middle(before)),
            (f"super resolution, {width}x{height}", middle(after)),
        ]


def read_sample(path: Path) -> Pixels:
    """Return the frames of a sample, a video or a folder of images: uint8 RGB [F, H, W, 3].

    Raises:
        UserError: it is missing or damaged.
    """
    return _read(path, lambda frames: range(frames))


def read_few(path: Path, count: int = FRAMES_PER_CLIP) -> Pixels:
    """Return the frames [F, H, W, 3] of a sample that `few_frames` would choose; others are not kept in memory.

    Raises:
        UserError: it is missing or damaged.
    """
    return _read(path, lambda frames: _few_places(frames, count))


def _read(path: Path, choose: Callable[[int], Sequence[int]]) -> Pixels:
    """Read frames of a sample, chosen by their number: uint8 RGB [F, H, W, 3]."""
    if path.is_dir():
        files = frame_files(path)
        return np.stack([read_image(files[place]) for place in choose(len(files))])
    info = probe(path, "video")
    with VideoReader(info, Fitter(None)) as reader:
        return np.stack([reader.pixels(place) for place in choose(len(info.timeline.times))])


def middle(frames: Pixels) -> Pixels:
    """Return the middle of frames [F, H, W, 3], a square of at most `DETAIL` pixels."""
    tops = [max(0, (side - DETAIL) // 2) for side in frames.shape[1:3]]
    part: Pixels = frames[:, tops[0] : tops[0] + DETAIL, tops[1] : tops[1] + DETAIL]
    return part


def _resized(frame: Pixels, height: int, width: int) -> Pixels:
    """Enlarge a frame [H, W, 3] bilinearly, as latents are for super resolution."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def few_frames(frames: Pixels, count: int = FRAMES_PER_CLIP) -> Pixels:
    """Return up to `count` of the frames [F, H, W, 3], evenly spaced from the first to the last."""
    few: Pixels = frames[_few_places(len(frames), count)]
    return few


def _few_places(frames: int, count: int) -> list[int]:
    """The numbers of up to `count` of so many frames, evenly spaced from the first to the last."""
    return [round(place) for place in np.linspace(0, frames - 1, min(count, frames)).tolist()]


def draw_sheet(rows: Sequence[SheetRow]) -> Pixels:
    """Draw the contact sheet: uint8 RGB [H, W, 3].

    Raises:
        UserError: there is nothing to show.
    """
    if not rows:
        raise UserError("no samples for a contact sheet", hint="add sample.prompts to the config")
    drawn = [_lines(row) for row in rows]
    lines = [line for row in drawn for line in row]
    columns = max(map(len, lines))
    widths = [max(line[n][1].width for line in lines if n < len(line)) for n in range(columns)]
    lefts = [MARGIN + sum(widths[:n]) + n * GAP for n in range(columns)]
    font = ImageFont.load_default(13)
    titles = [row.title or row.prompt for row in rows]
    width = max(lefts[-1] + widths[-1], *(MARGIN + int(font.getlength(title)) for title in titles)) + MARGIN
    height = MARGIN + len(rows) * LINE + sum(LINE + _height(line) + GAP for line in lines)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for title, row in zip(titles, drawn, strict=True):
        pen.text((MARGIN, top), title, fill=INK, font=font)
        top += LINE
        for line in row:
            for left, (label, few) in zip(lefts, line, strict=False):
                pen.text((left, top), label, fill=INK, font=font)
                sheet.paste(few, (left, top + LINE))
            top += LINE + _height(line) + GAP
    return np.asarray(sheet)


_Line = list[tuple[str, Image.Image]]
"""Pictures side by side, each with its label."""


def _lines(row: SheetRow) -> list[_Line]:
    """The lines of pictures of a row."""
    lines = [[(label, strip(clip)) for label, clip in row.clips]]
    if details := row.details:
        lines.append([(label, strip(clip, height=clip.shape[1])) for label, clip in details])
    return lines


def _height(line: _Line) -> int:
    return max(picture.height for _, picture in line)


def mean_change(rows: Sequence[SheetRow]) -> str:
    """Return a sentence on how much the LoRA changed the samples that also exist without it; "" if there are none."""
    changes = [
        np.abs(row.with_lora.astype(float) - row.without.astype(float)).mean()
        for row in rows
        if row.without is not None
    ]
    if not changes:
        return ""
    return f"the LoRA changed the pixels of {len(changes)} samples by {np.mean(changes):.1f} of 255 on average"


def strip(frames: Pixels, count: int = FRAMES_PER_CLIP, *, height: int = _HEIGHT) -> Image.Image:
    """Draw a few frames of a clip [F, H, W, 3] side by side, each so many pixels high."""
    few = few_frames(frames, count)
    size = (round(few.shape[2] * height / few.shape[1]), height)
    drawn = Image.new("RGB", (len(few) * (size[0] + 2) - 2, height), PAPER)
    for number, frame in enumerate(few):
        drawn.paste(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), (number * (size[0] + 2), 0))
    return drawn
