"""Planning clips: which windows a dataset's settings cut, and what names them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import Clip, missing_lengths, plan_clips
from hv15.data.frames import Timeline
from hv15.data.media import MediaError, MediaInfo, MediaKind
from hv15.digest import digest


def info(
    frames: int = 100, fps: int = 24, kind: MediaKind = "video", size: tuple[int, int] = (540, 960), alpha: bool = False
) -> MediaInfo:
    return MediaInfo(Path("clips/a.mp4"), kind, *size, alpha, Timeline.constant(frames, Fraction(fps)))


def dataset(**settings: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"video_directory": "clips", **settings})


def test_videos_get_buckets_like_images() -> None:
    wide = plan_clips(info(), dataset(target_frames=[17]))
    assert wide == [Clip(0, 17, 544, 960, "24")]
    tall = plan_clips(info(size=(960, 540)), dataset(target_frames=[17]))
    assert (tall[0].height, tall[0].width) == (960, 544)
    same = plan_clips(info(size=(960, 540)), dataset(target_frames=[17], enable_bucket=False))
    assert (same[0].height, same[0].width) == (544, 960)


def test_an_image_is_one_clip_whatever_the_video_settings_say() -> None:
    still = MediaInfo(Path("a.png"), "image", 540, 960, False, Timeline.constant(1, Fraction(1)))
    assert plan_clips(still, DatasetSettings(image_directory=".")) == [Clip(0, 1, 544, 960, "")]


def test_short_clips_are_errors_that_say_what_fits() -> None:
    with pytest.raises(MediaError, match=r"a\.mp4: 14 frames at 24 fps, but target_frames asks for 17") as caught:
        plan_clips(info(14), dataset(target_frames=[17, 33]))
    assert "add 13 to target_frames" in caught.value.hint
    assert plan_clips(info(14), dataset(target_frames=[1, 17])) == [Clip(0, 1, 544, 960, "24")]
    assert missing_lengths(info(14), dataset(target_frames=[1, 17, 33])) == [17, 33]
    assert missing_lengths(info(14), dataset(frame_extraction="full")) == []


@pytest.mark.parametrize("settings", [{}, {"bucket_no_upscale": True}, {"enable_bucket": False}])
def test_small_and_narrow_pictures_are_errors_of_their_file(settings: dict[str, bool]) -> None:
    for size, message in {
        (8, 100): "100x8 pixels is too small",
        (1, 100_000): "100000x1 pixels is too small",
        (8000, 8): "8x8000 pixels is too small",
        (16, 1601): "1601x16 pixels is too narrow",
        (9000, 64): "64x9000 pixels is too narrow",
    }.items():
        with pytest.raises(MediaError, match=rf"a\.mp4: a picture of {message}"):
            plan_clips(info(size=size), dataset(**settings))
    assert plan_clips(info(size=(16, 1600)), dataset(**settings))


def test_a_gap_of_days_is_an_error_and_not_a_million_clips() -> None:
    days = Timeline((0, 1, 3 * 86400 * 24, 3 * 86400 * 24 + 1), 3 * 86400 * 24 + 2, Fraction(1, 24))
    gap = MediaInfo(Path("clips/a.mp4"), "video", 540, 960, False, days)
    settings = {"frame_extraction": "chunk", "target_frames": [1]}
    with pytest.raises(MediaError, match=r"a\.mp4: frame 1 of 4 lasts 72\.0 hours; expected at most 60 s") as caught:
        plan_clips(gap, dataset(**settings))
    assert "source_fps" in caught.value.hint
    assert len(plan_clips(gap, dataset(**settings, source_fps=24))) == 4
    minute = MediaInfo(Path("a.mp4"), "video", 540, 960, False, Timeline((0, 60), 120, Fraction(1)))
    assert len(plan_clips(minute, dataset(**settings))) == 120 * 24


def test_a_limit_on_clips_names_the_file() -> None:
    with pytest.raises(MediaError, match=r"a\.mp4: its 30000 frames would give more than 20000 clips"):
        plan_clips(info(30_000), dataset(target_frames=[17], frame_extraction="slide"))


def test_the_source_rate_changes_windows_and_identity() -> None:
    plain = plan_clips(info(60, 30), dataset(target_frames=[17], frame_extraction="chunk"))
    assert [clip.start for clip in plain] == [0, 17]  # 48 frames
    stated = plan_clips(info(60, 30), dataset(target_frames=[17], frame_extraction="chunk", source_fps=24))
    assert [clip.start for clip in stated] == [0, 17, 34]  # 60 frames
    assert stated[0].fps == "24 from 24"
    assert plain[0].identity() != stated[0].identity()


def test_the_background_matters_only_behind_transparency() -> None:
    red = dataset(background="#ff0000")
    assert plan_clips(info(), red) == plan_clips(info(), dataset())
    assert plan_clips(info(alpha=True), red)[0].background == "#ff0000"
    assert plan_clips(info(alpha=True), red) != plan_clips(info(alpha=True), dataset())


def test_an_identity_is_stable() -> None:
    """Stores made by an earlier version stay valid, until hv15.formats.LATENTS says otherwise."""
    identity = Clip(17, 9, 544, 960, "24").identity()
    assert identity == {"start": 17, "frames": 9, "size": [544, 960], "fps": "24", "background": ""}
    assert digest(identity) == digest(dict(reversed(identity.items())))


def test_a_folder_of_images_plays_at_the_target_rate() -> None:
    folder = info(20, 1, kind="frames")
    assert [c.frames for c in plan_clips(folder, dataset(frame_extraction="full"))] == [17]
    assert [c.frames for c in plan_clips(folder, dataset(frame_extraction="full", source_fps=12))] == [37]
