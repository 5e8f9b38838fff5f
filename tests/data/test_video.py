"""Videos as players show them: cut without re-encoding, begun between key frames, interlaced, with transparency."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from hv15.config.datasets import DatasetSettings
from hv15.data import video
from hv15.data.clips import Clip, plan_clips
from hv15.data.decode import VideoReader, read_clips
from hv15.data.media import VIDEO_SUFFIXES, MediaError
from hv15.data.pixels import Fitter
from hv15.data.probe import probe
from tests.data.videos import copy_packets, make_video, number_of, numbers_of, show_only

CASES = Path(__file__).parent / "cases"


def dataset(**settings: object) -> DatasetSettings:
    fixed = {"video_directory": ".", "resolution": (64, 48), "enable_bucket": False}
    return DatasetSettings.model_validate({**fixed, **settings})


def numbers_in(path: Path) -> list[int]:
    """The numbers of all frames of a video of a constant 24 fps, as clips of one frame show them."""
    rate = {"source_fps": 24} if path.suffix in (".h264", ".m2v") else {}  # whose rate nobody wrote down
    chosen = dataset(frame_extraction="chunk", target_frames=[1], **rate)
    info = probe(path, "video")
    clips = plan_clips(info, chosen)
    assert len(clips) == len(info.timeline.times)
    return [number for _, shown in read_clips(path, "video", clips, chosen, info) for number in numbers_of(shown)]


# -- endings --


@pytest.mark.parametrize(
    ("name", "made", "codec", "pix_fmt"),
    [
        ("a.qt", "a.mov", "libx264", "yuv420p"),
        ("a.f4v", "a.mp4", "libx264", "yuv420p"),
        ("a.3g2", "a.3g2", "libx264", "yuv420p"),
        ("a.asf", "a.asf", "wmv2", "yuv420p"),
        ("a.vob", "a.vob", "mpeg2video", "yuv420p"),
        ("a.mpe", "a.mpg", "mpeg2video", "yuv420p"),
        ("a.m2v", "a.m2v", "mpeg2video", "yuv420p"),
        ("a.m2t", "a.ts", "libx264", "yuv420p"),
        ("a.mxf", "a.mxf", "mpeg2video", "yuv420p"),
        ("a.gif", "a.gif", "gif", "rgb8"),
        ("a.apng", "a.apng", "apng", "rgb24"),
    ],
)
def test_every_ending_that_is_listed_is_read(tmp_path: Path, name: str, made: str, codec: str, pix_fmt: str) -> None:
    path = make_video(tmp_path / made, 30, codec=codec, pix_fmt=pix_fmt).rename(tmp_path / name)
    assert path.suffix in VIDEO_SUFFIXES
    numbers = numbers_in(path) if codec != "gif" else numbers_in_order(path)
    assert numbers == list(range(30))


def numbers_in_order(path: Path) -> list[int]:
    """The numbers of all source frames: GIF's clock of 1/100 s has no 24 fps."""
    info = probe(path, "video")
    with VideoReader(info, Fitter((48, 64))) as reader:
        return [number_of(reader.pixels(index)) for index in range(len(info.timeline.times))]


# -- edit lists --


@pytest.mark.slow
def test_a_lossless_cut_is_what_every_player_shows() -> None:
    info = probe(CASES / "lossless_cut.mp4", "video")
    assert (len(info.timeline.times), info.timeline.rate, info.notes) == (77, 25, ())
    with av.open(str(CASES / "lossless_cut.mp4")) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with VideoReader(info, Fitter(None)) as reader:
        shown = [reader.pixels(index) for index in range(77)]
    assert len(plain) == len(shown)
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(shown, plain, strict=True)) < 3


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize(("first", "count"), [(0, 72), (30, 42), (0, 40), (30, 20), (50, 5)])
def test_edit_lists_hide_a_beginning_an_end_or_both(tmp_path: Path, first: int, count: int, bframes: str) -> None:
    path = make_video(tmp_path / "a.mp4", 72, options={"g": "24", "bf": bframes})
    assert numbers_in(show_only(path, first, count)) == list(range(first, first + count))


def test_hidden_packets_do_not_hide_a_loss(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    path = show_only(make_video(tmp_path / "a.mp4", 72, options={"g": "24"}, container_options=options), 30, 42)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    with pytest.raises(MediaError, match=r"a\.mp4: cut short"):
        probe(path, "video")


def test_a_far_clip_behind_a_hidden_key_frame(tmp_path: Path) -> None:
    """The key frame that it depends on is hidden: no seeking is possible, and no frame is lost."""
    path = show_only(make_video(tmp_path / "a.mp4", 200, options={"g": "100", "keyint_min": "100"}), 20, 150)
    clips = [Clip(60, 5, 48, 64, "24"), Clip(130, 5, 48, 64, "24")]
    assert [numbers_of(shown) for _, shown in read_clips(path, "video", clips, dataset())] == [
        list(range(80, 85)),
        list(range(150, 155)),
    ]


# -- streams that begin between key frames --

OPEN = {"g": "24", "x264-params": "open-gop=1"}
HEVC = {"g": "24", "x265-params": "open-gop=1:bframes=3:log-level=none"}


@pytest.mark.parametrize(
    ("name", "codec", "options", "skipped"),
    [
        ("closed.ts", "libx264", {"g": "24"}, 10),
        ("open.ts", "libx264", OPEN, 10),
        ("hevc.ts", "libx265", HEVC, 10),
        ("hevc_at_key.ts", "libx265", HEVC, 23),  # at a key frame, whose leading frames hang on the one before
        ("mpeg2.ts", "mpeg2video", {"g": "12", "bf": "2"}, 10),
        ("mpeg2.mpg", "mpeg2video", {"g": "12", "bf": "2"}, 10),
        ("mpeg2.m2v", "mpeg2video", {"g": "12", "bf": "2"}, 10),
        ("vp9.mkv", "libvpx-vp9", {"g": "24"}, 10),
        ("raw.h264", "libx264", OPEN, 10),
        ("h264.avi", "libx264", {"g": "24", "bf": "2"}, 10),
        ("asp.avi", "mpeg4", {"g": "12", "bf": "2"}, 10),
    ],
)
def test_a_stream_begins_with_its_first_frame_that_can_be_decoded(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], skipped: int
) -> None:
    whole = make_video(tmp_path / f"whole_{name}", 72, codec=codec, options=options)
    path = copy_packets(whole, tmp_path / name, skip=skipped)
    numbers = numbers_in(path)
    assert numbers == list(range(72 - len(numbers), 72))
    assert 34 <= len(numbers) <= 60  # nothing frozen, nothing else lost
    (note,) = probe(path, "video").notes
    assert f"begins between key frames: its first {72 - skipped - len(numbers)} frame" in note
    assert probe(whole, "video").notes == ()


def test_a_recording_cut_anywhere(tmp_path: Path) -> None:
    """Cut in the middle of packets, at bytes and not at frames."""
    data = make_video(tmp_path / "a.ts", 96, options={"g": "24"}).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[len(data) // 4 + 77 :])
    numbers = numbers_in(path)
    assert numbers == list(range(96 - len(numbers), 96))
    assert len(numbers) >= 72 - 24
    assert "begins between key frames" in probe(path, "video").notes[0]


def test_a_stream_without_any_key_frame_is_named(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mkv", 30, codec="libvpx-vp9", options={"g": "100"})
    path = copy_packets(whole, tmp_path / "a.mkv", skip=5)
    with pytest.raises(MediaError, match=r"a\.mkv: no key frame among its 25 frames"):
        probe(path, "video")


# -- interlaced --


def moving_fields(frames: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """A bar that moves with each field: the picture of each field in full, and the frames that weave two of them."""
    fields = []
    for number in range(2 * frames):
        picture = np.full((48, 512, 3), 40, np.uint8)
        picture[:, 4 + 5 * number : 44 + 5 * number] = 210
        fields.append(picture)
    woven = [fields[2 * i].copy() for i in range(frames)]
    for i, picture in enumerate(woven):
        picture[1::2] = fields[2 * i + 1][1::2]
    return fields, woven


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "tff=1", "crf": "4", "g": "8", "keyint_min": "8"}),
        ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2", "g": "8"}),
        ("a.avi", "libx264", {"x264-params": "tff=1", "crf": "4"}),
    ],
)
def test_interlaced_video_is_deinterlaced(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    fields, woven = moving_fields(45)
    path = make_video(tmp_path / name, woven, 24, codec=codec, options=options)
    info = probe(path, "video")
    assert info.notes == ("interlaced video: it is deinterlaced (bwdif)",)
    chosen = dataset(resolution=(512, 48), frame_extraction="full", max_frames=45)
    ((_, shown),) = read_clips(path, "video", plan_clips(info, chosen), chosen, info)

    def error(picture: NDArray[np.uint8], number: int) -> float:
        inner = np.s_[6:-6]  # there are no lines beyond the border to take from
        return min(np.abs(picture.astype(int) - field)[inner].mean() for field in fields[2 * number : 2 * number + 2])

    assert len(shown) == 45
    combed = min(error(picture, number) for number, picture in enumerate(woven))
    assert max(error(picture, number) for number, picture in enumerate(shown)) < combed / 2

    far = [Clip(32, 5, 48, 512, "24")]  # the same pixels, whichever clips are wanted
    ((_, alone),) = read_clips(path, "video", far, chosen, info)
    assert (alone == shown[32:37]).all()


def test_progressive_video_is_left_alone(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 9)
    with video.open_video(path) as (container, stream):
        plain = [frame.to_ndarray(format="rgb24") for frame in video.decoded(container, stream)]
    with video.open_video(path) as (container, stream):
        through = [frame.to_ndarray(format="rgb24") for frame in video.decoded(container, stream, deinterlace=True)]
    assert all((a == b).all() for a, b in zip(plain, through, strict=True))


# -- transparency --


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_webm_lies_on_the_background(tmp_path: Path, codec: str) -> None:
    picture = np.zeros((48, 64, 4), np.uint8)
    picture[:, :32] = (200, 100, 50, 255)
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options={"auto-alt-ref": "0", "crf": "4", "b": "2M", "g": "8"})
        stream.codec_context.width, stream.codec_context.height = 64, 48
        stream.codec_context.pix_fmt = "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    settings = dataset(background="#00ff00", target_frames=[1], frame_extraction="uniform", frame_sample=2)
    info = probe(path, "video")
    assert info.alpha
    clips = plan_clips(info, settings)
    assert [clip.start for clip in clips] == [0, 39]  # the second by seeking
    for _, shown in read_clips(path, "video", clips, settings, info):
        assert np.abs(shown[0, :, :28].astype(int) - (200, 100, 50)).max() < 12
        assert np.abs(shown[0, :, 36:].astype(int) - (0, 255, 0)).max() < 12


# -- limits --


def test_frames_that_are_too_large_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_PIXELS", 1 << 10)
    with pytest.raises(MediaError, match=r"a\.mp4: frames of 64x48 pixels are too large") as caught:
        probe(make_video(tmp_path / "a.mp4", 3), "video")
    assert "damaged" not in str(caught.value)


def test_a_long_narrow_video_is_refused_as_such(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", [np.zeros((8000, 8, 3), np.uint8)] * 3, codec="ffv1", pix_fmt="yuv420p")
    with pytest.raises(MediaError, match=r"a\.mkv: a picture of 8x8000 pixels is too small"):
        plan_clips(probe(path, "video"), dataset())
