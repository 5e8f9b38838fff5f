"""docs/datasets.md says what the code does."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from hv15 import grid
from hv15.config.export import REPOSITORY
from hv15.data import buckets, captions, clips, frames, images, musubi, rows, video
from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from hv15.models.templates import MAX_GLYPH_TOKENS, MAX_TEXT_TOKENS
from tests.data.test_rates import FIRST_13

TEXT = (REPOSITORY / Path("docs/datasets.md")).read_text(encoding="utf-8")


def test_extensions() -> None:
    for kind, suffixes in (("videos", VIDEO_SUFFIXES), ("images", IMAGE_SUFFIXES)):
        (row,) = re.findall(rf"^\| {kind} \| `(.+)` \|$", TEXT, re.MULTILINE)
        assert row.split() == sorted(suffixes)


def test_limits() -> None:
    for words in (
        f"at most {captions.MOST_CAPTION >> 10} KiB",
        f"({MAX_TEXT_TOKENS} tokens, and {MAX_GLYPH_TOKENS} bytes in quotes)",
        f"{images.MOST_PIXELS >> 20} Mi pixels, in at most {images.BYTES_PER_PIXEL} bytes per pixel",
        f"above {images.LARGE >> 20} Mi pixels, blocks of pixels are averaged",
        f"metadata | {images.MOST_TEXT >> 20} MiB |",
        f"video frame | {video.MOST_PIXELS >> 20} Mi pixels |",
        f"| each side at least {grid.PIXELS_PER_CELL} pixels, one side at most {buckets.MOST_ASPECT} times the other |",
        f"displayed for at most {clips.MOST_STILL} s",
        f"clips of one file | {frames.MOST_WINDOWS:,} |",
        f"| {rows.MOST_BYTES >> 30} GiB, {musubi.MOST_BYTES >> 10} KiB |",
    ):
        assert words in TEXT


def test_frames() -> None:
    for rate, expected in FIRST_13.items():
        name = f"{float(rate):.3f}".rstrip("0").rstrip(".")
        if rate == 25 or rate not in map(Fraction, (12, 15, 24, 30, 48, 50, 60)):
            continue
        (row,) = re.findall(rf"^\| (?:[\d.]+, )?{name} \| (.+) \|$", TEXT, re.MULTILINE)
        assert tuple(map(int, row.split())) == expected
