"""The contact sheet: a row for each prompt with a few frames, without and with the trained LoRA side by side."""

from __future__ import annotations

from collections.abc import Sequence
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

    @property
    def clips(self) -> list[tuple[str, Pixels]]:
        """The clips, uint8 [F, H, W, 3], from left to right, each with its label."""
        if self.without is None:
            return [(WITH, self.with_lora)]
        return [(WITHOUT, self.without), (WITH, self.with_lora)]


def read_sample(path: Path) -> Pixels:
    """Return the frames of a sample, a video or a folder of images: uint8 RGB [F, H, W, 3].

    Raises:
        UserError: it is missing or damaged.
    """
    if path.is_dir():
        return np.stack([read_image(file) for file in frame_files(path)])
    info = probe(path, "video")
    with VideoReader(info, Fitter(None)) as reader:
        return np.stack([reader.pixels(index) for index in range(len(info.timeline.times))])


def few_frames(frames: Pixels, count: int = FRAMES_PER_CLIP) -> Pixels:
    """Return up to `count` of the frames [F, H, W, 3], evenly spaced from the first to the last."""
    places = np.linspace(0, len(frames) - 1, min(count, len(frames)))
    few: Pixels = frames[np.rint(places).astype(int)]
    return few


def draw_sheet(rows: Sequence[SheetRow]) -> Pixels:
    """Draw the contact sheet: uint8 RGB [H, W, 3].

    Raises:
        UserError: there is nothing to show.
    """
    if not rows:
        raise UserError("no samples for a contact sheet", hint="add sample.prompts to the config")
    strips = [[(label, strip(clip)) for label, clip in row.clips] for row in rows]
    columns = max(len(row) for row in strips)
    widths = [max(row[n][1].width for row in strips if n < len(row)) for n in range(columns)]
    lefts = [MARGIN + sum(widths[:n]) + n * GAP for n in range(columns)]
    font = ImageFont.load_default(13)
    titles = [row.title or row.prompt for row in rows]
    width = max(lefts[-1] + widths[-1], *(MARGIN + int(font.getlength(title)) for title in titles)) + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (2 * LINE + _HEIGHT + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for title, clips in zip(titles, strips, strict=True):
        pen.text((MARGIN, top), title, fill=INK, font=font)
        for left, (label, few) in zip(lefts, clips, strict=False):
            pen.text((left, top + LINE), label, fill=INK, font=font)
            sheet.paste(few, (left, top + 2 * LINE))
        top += 2 * LINE + _HEIGHT + GAP
    return np.asarray(sheet)


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


def strip(frames: Pixels, count: int = FRAMES_PER_CLIP) -> Image.Image:
    """Draw a few frames of a clip [F, H, W, 3] side by side, each `_HEIGHT` pixels high."""
    few = few_frames(frames, count)
    height, width = few.shape[1:3]
    size = (round(width * _HEIGHT / height), _HEIGHT)
    drawn = Image.new("RGB", (len(few) * (size[0] + 2) - 2, _HEIGHT), PAPER)
    for number, frame in enumerate(few):
        drawn.paste(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), (number * (size[0] + 2), 0))
    return drawn
