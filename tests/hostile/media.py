"""Pictures and videos of any shape and length, and what must be said about them before anything is encoded."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from PIL import Image

from hv15.data.images import MOST_TEXT
from tests.data.pictures import claims, png
from tests.data.videos import make_audio, make_video
from tests.hostile.entry import Hostile, project

HOURS = 3600


def _picture(make: Callable[[Path], object], *said: str, code: int = 2) -> Hostile:
    return _clip("a.png", "image_directory: clips, resolution: [512, 512]", make, said, code)


def _video(make: Callable[[Path], object], *said: str, name: str = "a.mp4", settings: str = "") -> Hostile:
    return _clip(name, f"video_directory: clips, resolution: [64, 64]{settings}", make, said, 2)


def _clip(name: str, settings: str, make: Callable[[Path], object], said: tuple[str, ...], code: int) -> Hostile:
    def files(folder: Path) -> None:
        (folder / "clips").mkdir()
        (folder / "clips" / name).with_suffix(".txt").write_text("a caption")
        make(folder / "clips" / name)

    return Hostile(project(f"[{{{settings}}}]", files=files), ("check", "."), said, code)


def _of_times(*times: Fraction) -> Callable[[Path], Path]:
    return lambda path: make_video(path, len(times), times=times, time_base=Fraction(1, 24))


def _many_buckets(folder: Path) -> None:
    """Hundreds of pictures, each of a shape of its own."""
    for number in range(300):
        Image.new("L", (64 + number, 64)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a caption")


INPUTS = {
    "picture: a line": _picture(
        lambda path: Image.new("L", (100_000, 1)).save(path), "a.png: a picture of 100000x1 pixels is too small"
    ),
    "picture: a column": _picture(
        lambda path: Image.new("L", (8, 8000)).save(path), "a.png: a picture of 8x8000 pixels is too small"
    ),
    "picture: a strip": _picture(
        lambda path: Image.new("L", (64, 9000)).save(path), "a.png: a picture of 64x9000 pixels is too narrow"
    ),
    "picture: a huge size": _picture(
        lambda path: claims(png(path, 8, 8), 40_000, 40_000),
        "a.png: a picture of 40000x40000 pixels is too large: expected at most 512 Mi pixels",
    ),
    "picture: an impossible size": _picture(
        lambda path: claims(png(path, 8, 8), 2**31 - 1, 2**31 - 1),
        "pixels is too large: expected at most 512 Mi pixels",
    ),
    "picture: no size": _picture(lambda path: claims(png(path, 8, 8), 0, 0), "a.png: "),
    "picture: a bomb of text": _picture(
        lambda path: png(path, 32, 16, (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(MOST_TEXT + 1000)))),
        "a.png: its metadata is too large: expected at most 64 MiB of text",
    ),
    "picture: long text": _picture(
        lambda path: png(path, 64, 64, (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(MOST_TEXT - 1000)))),
        "1 file, 1 clip",
        code=0,
    ),
    "picture: text that a terminal would obey": _picture(
        lambda path: png(path, 64, 64, (b"tEXt", b"Comment\0\x1b]52;c;ZXZpbA==\x07")), "1 file, 1 clip", code=0
    ),
    "picture: a false profile": _picture(
        lambda path: Image.new("RGB", (64, 64)).save(path, icc_profile=b"\x1b[2J" * 99), "ICC profile", code=0
    ),
    "picture: 300 shapes": _picture(lambda path: _many_buckets(path.parent), "smaller ones: ", code=0),
    "video: a gap of days": _video(
        _of_times(Fraction(0), Fraction(1, 24), Fraction(72 * HOURS), Fraction(72 * HOURS) + Fraction(1, 24)),
        "a.mkv: frame 1 of 4 lasts 72.0 hours; expected at most 60 s",
        "source_fps",
        name="a.mkv",
    ),
    "video: endless clips": _video(
        _of_times(*(Fraction(45 * number) for number in range(30))),
        "a.mkv: its ",
        "frames would give more than 20000 clips",
        name="a.mkv",
        settings=", frame_extraction: slide, frame_stride: 1, target_frames: [5]",
    ),
    "video: long and narrow": _video(
        lambda path: make_video(path, 3, size=(16, 2000)), "a.mp4: a picture of 2000x16 pixels is too narrow"
    ),
    "video: long and narrow, to be averaged": _video(
        lambda path: make_video(path, 3, size=(2000, 8)), "a.mp4: a picture of 8x2000 pixels is too small"
    ),
    "video: cut short": _video(
        lambda path: path.write_bytes(make_video(path, 48).read_bytes()[:-200]), "a.mp4: cannot be read as a video"
    ),
    "video: text": _video(lambda path: path.write_text("\x1b[2J" * 999), "a.mp4: cannot be read as a video"),
    "video: a list of others": _video(
        lambda path: path.write_text("ffconcat version 1.0\nfile ../../outside/notes.txt\n"), "a.mp4: "
    ),
    "video: an address": _video(
        lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
        "a.mp4: cannot be read as a video",
    ),
    "video: a pipe": _video(os.mkfifo, "a.mp4"),
    "video: sound": _video(lambda path: make_audio(path.with_suffix(".m4a")).rename(path), "a.mp4: expected a video"),
}
