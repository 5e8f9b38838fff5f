"""Planning clips: which windows a dataset's settings cut, and what names them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import Clip, missing_lengths, plan_clips
from hv15.data.frames import Timeline
from hv15.data.media import Kind, MediaError, MediaInfo
from hv15.digest import digest


def info(
    frames: int = 100, fps: int = 24, kind: Kind = "video", size: tuple[int, int] = (540, 960), alpha: bool = False
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


def test_small_pictures_are_errors_of_their_file() -> None:
    with pytest.raises(MediaError, match=r"a\.mp4: a picture of 100x8 pixels is too small"):
        plan_clips(info(size=(8, 100)), dataset(bucket_no_upscale=True))


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
    """Stores made by an earlier version stay valid."""
    identity = Clip(17, 9, 544, 960, "24").identity()
    assert identity == {"start": 17, "frames": 9, "size": [544, 960], "fps": "24", "background": ""}
    assert digest(identity) == digest(dict(reversed(identity.items())))


def test_a_folder_of_images_plays_at_the_target_rate() -> None:
    folder = info(20, 1, kind="frames")
    assert [c.frames for c in plan_clips(folder, dataset(frame_extraction="full"))] == [17]
    assert [c.frames for c in plan_clips(folder, dataset(frame_extraction="full", source_fps=12))] == [37]
