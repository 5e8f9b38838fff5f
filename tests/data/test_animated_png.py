"""Animated PNGs as Pillow and ffmpeg read them: each frame exactly, its duration, the metadata."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from hv15.data.animated_png import write_animation
from hv15.data.pixels import Pixels
from hv15.errors import UserError


def moving(count: int) -> Pixels:
    """A square that moves over noise, [F, 40, 56, 3]."""
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 40, 56, 3), dtype=np.uint8), count, axis=0)
    for number, frame in enumerate(frames):
        frame[3 + number : 9 + number, 2 * number : 2 * number + 8] = (250, 20, 20 + number)
    return frames


FRAMES = {
    "a square that moves": moving(7),
    "nothing changes": np.full((4, 16, 16, 3), 90, np.uint8),
    "one frame": moving(1),
    "all is new": np.random.default_rng(1).integers(0, 256, (3, 300, 200, 3), dtype=np.uint8),
    "the last pixel changes": np.stack(
        [np.pad(np.zeros((15, 15, 3), np.uint8), ((0, 1), (0, 1), (0, 0))), moving(1)[0, :16, :16]]
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_pillow_shows_each_frame(tmp_path: Path, name: str) -> None:
    frames = FRAMES[name]
    write_animation(tmp_path / "a.png", frames, 24, {"prompt": "\u6f22\u5b57", "empty": ""})
    with Image.open(tmp_path / "a.png") as image:
        assert getattr(image, "n_frames", 1) == len(frames)
        assert image.text == {"prompt": "\u6f22\u5b57", "empty": ""}
        if len(frames) > 1:
            assert image.info["loop"] == 0
            assert image.info["duration"] == pytest.approx(1000 / 24)
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert np.array_equal(np.stack(shown), frames)
    with Image.open(tmp_path / "a.png") as image:
        image.verify()


@pytest.mark.parametrize("name", FRAMES)
def test_ffmpeg_shows_each_frame(tmp_path: Path, name: str) -> None:
    write_animation(tmp_path / "a.png", FRAMES[name], 12.5)
    with av.open(str(tmp_path / "a.png"), format="apng") as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(np.stack(shown), FRAMES[name])


@pytest.mark.parametrize("fps", [0.01, 23.976, 24, 29.97, 1000])
def test_rates(tmp_path: Path, fps: float) -> None:
    write_animation(tmp_path / "a.png", moving(2), fps)
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["duration"] == pytest.approx(1000 / fps, rel=1e-3)


def test_only_what_changes_is_written(tmp_path: Path) -> None:
    write_animation(tmp_path / "few.png", moving(2))
    write_animation(tmp_path / "many.png", moving(20))
    one = (tmp_path / "few.png").stat().st_size
    assert (tmp_path / "many.png").stat().st_size < 1.5 * one


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frames"):
        write_animation(tmp_path / "a.png", [])
    assert list(tmp_path.iterdir()) == []
