"""Pixels: exact area averages, the stream's own colours, upright pictures, transparency."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data import pixels
from hv15.data.clips import Clip, plan_clips
from hv15.data.decode import read_clips
from hv15.data.media import MediaError, MediaKind
from hv15.data.pixels import Fitter, composite
from hv15.data.probe import probe
from tests.data.videos import make_video, numbered, turn

BT709, BT601 = 1, 5
LIMITED, FULL = 1, 2


def area_weights(source: int, target: int) -> NDArray[np.float64]:
    """Each target pixel averages the source interval that it covers, partly covered pixels in proportion."""
    scale = source / target
    weights = np.zeros((target, source))
    for out in range(target):
        for i in range(int(out * scale), min(source, math.ceil((out + 1) * scale))):
            weights[out, i] = min((out + 1) * scale, i + 1) - max(out * scale, i)
    return weights / scale


@pytest.mark.parametrize("size", [(480, 853), (272, 484), (96, 171)])
def test_shrinking_is_an_area_average(size: tuple[int, int]) -> None:
    """Noise is the hardest case: a filter that skips pixels is off by dozens."""
    noise = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    exact = np.einsum("ah,hwc,bw->abc", area_weights(720, size[0]), noise, area_weights(1280, size[1]), optimize=True)
    height, width = size
    shown = Fitter((height, width - 6)).image(noise)
    error = np.abs(shown - exact[:, 3:-3])
    assert error.max() < 1.6
    assert error.mean() < 0.3  # rounding alone is 0.25


def test_enlarging_is_lanczos() -> None:
    rough = np.random.default_rng(2).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((64, 48), Image.Resampling.BICUBIC))
    shown = Fitter((144, 192)).image(picture).astype(int)
    lanczos = np.asarray(Image.fromarray(picture).resize((192, 144), Image.Resampling.LANCZOS)).astype(int)
    bilinear = np.asarray(Image.fromarray(picture).resize((192, 144), Image.Resampling.BILINEAR)).astype(int)
    inner = np.s_[12:-12, 12:-12]
    assert np.abs(shown - lanczos)[inner].mean() < 1
    assert np.abs(shown - lanczos)[inner].mean() < 0.5 * np.abs(shown - bilinear)[inner].mean()


def test_the_middle_is_kept() -> None:
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = 200
    assert (Fitter((32, 32)).image(picture) == 200).all()
    assert (Fitter((32, 32)).image(picture.transpose(1, 0, 2).copy()) == 200).all()


def test_a_picture_of_the_right_size_is_untouched() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert (Fitter((32, 48)).image(noise) == noise).all()


def shown(path: Path, height: int, width: int, background: str = "") -> NDArray[np.uint8]:
    """The first frame of a video."""
    clip = Clip(0, 1, height, width, "24", background)
    ((_, picture),) = read_clips(path, "video", [clip], DatasetSettings(video_directory="."))
    return picture[0]


@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("full", [LIMITED, FULL])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le"])
def test_colours_survive_every_matrix_and_range(tmp_path: Path, matrix: int, full: int, pix_fmt: str) -> None:
    colours = [(250, 10, 10), (20, 240, 30), (10, 20, 230), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    picture = np.concatenate([np.full((48, 16, 3), colour, np.uint8) for colour in colours], axis=1)
    path = make_video(tmp_path / "a.mp4", [picture], pix_fmt=pix_fmt, colours=(matrix, full), options={"crf": "1"})
    seen = shown(path, 48, 96)
    for number, colour in enumerate(colours):
        assert np.abs(seen[:, 16 * number + 4 : 16 * number + 12].astype(int) - colour).max() <= 4


@pytest.mark.parametrize(("height", "matrix"), [(720, BT709), (480, BT601)])
def test_untagged_videos_are_taken_as_players_take_them(tmp_path: Path, height: int, matrix: int) -> None:
    picture = np.full((height, 64, 3), (30, 200, 90), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
        format="yuv444p", dst_colorspace=matrix, dst_color_range=LIMITED
    )
    planes = np.stack([np.frombuffer(bytes(p), np.uint8).reshape(height, p.line_size)[:, :64] for p in frame.planes])
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.codec_context.width, stream.codec_context.height = 64, height
        stream.codec_context.pix_fmt = "yuv444p"
        plain = av.VideoFrame.from_ndarray(planes, "yuv444p")
        container.mux(stream.encode(plain))
        container.mux(stream.encode())
    assert np.abs(shown(path, height, 64).astype(int) - (30, 200, 90)).max() <= 2


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_turned_videos_are_shown_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The display matrix maps a stored point (x, y) to (ax + cy, bx + dy), moved into the picture."""
    stored = np.full((32, 48, 3), 60, np.uint8)
    stored[:16, :16], stored[16:, 32:] = (220, 30, 30), (30, 30, 220)
    path = turn(make_video(tmp_path / "a.mp4", [stored], options={"crf": "1"}), matrix)
    info = probe(path, "video")
    upright = np.zeros((info.height, info.width, 3), np.uint8)
    a, b, c, d = matrix
    for y, x in np.ndindex(32, 48):
        to_x, to_y = a * (x + 0.5) + c * (y + 0.5), b * (x + 0.5) + d * (y + 0.5)
        upright[math.floor(to_y), math.floor(to_x)] = stored[y, x]  # negative: counted from the other side
    seen = shown(path, info.height, info.width).astype(int)
    assert np.abs(seen - upright).mean() < 6
    smaller = shown(path, info.height // 2, info.width // 2).astype(int)
    assert np.abs(smaller - upright[::2, ::2]).mean() < 9


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    stored = np.concatenate([np.full((48, 32, 3), value, np.uint8) for value in (40, 200)], axis=1)
    path = make_video(tmp_path / "a.mp4", [stored], aspect=Fraction(2))
    info = probe(path, "video")
    assert (info.height, info.width) == (48, 128)
    seen = shown(path, 48, 128)
    assert (seen[:, :56] < 60).all()
    assert (seen[:, 72:] > 180).all()


@pytest.mark.parametrize("background", ["#000000", "#ff8000"])
def test_transparent_videos_lie_on_the_background(tmp_path: Path, background: str) -> None:
    picture = np.zeros((32, 48, 4), np.uint8)
    picture[:, :16] = (200, 100, 50, 255)
    picture[:, 16:32] = (200, 100, 50, 128)
    path = make_video(tmp_path / "a.mov", [picture], codec="png", pix_fmt="rgba", source_format="rgba")
    settings = DatasetSettings(video_directory=".", resolution=(48, 32), enable_bucket=False, background=background)
    (clip,) = plan_clips(probe(path, "video"), settings)
    assert clip.background == background
    seen = shown(path, 32, 48, background)
    behind = np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)])
    assert (seen[:, :16] == (200, 100, 50)).all()
    assert (seen[:, 32:] == behind).all()
    assert np.abs(seen[:, 16:32] - (np.array([200, 100, 50]) * 128 + behind * 127) / 255).max() <= 1


def test_compositing_rounds_to_nearest() -> None:
    pixel = np.array([[[255, 0, 200, 127]]], np.uint8)
    assert composite(pixel, "#00ff0a").tolist() == [[[127, 128, 105]]]  # (200 * 127 + 10 * 128) / 255 = 104.6


def test_one_step_equals_convert_then_shrink(tmp_path: Path) -> None:
    """Resizing while converting from 4:2:0 gives what full-size RGB would give, within the chroma's resolution."""
    smooth = np.random.default_rng(5).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(smooth).resize((320, 180), Image.Resampling.BICUBIC))
    path = make_video(tmp_path / "a.mp4", [picture], options={"crf": "1"})
    full = shown(path, 180, 320)
    exact = np.einsum("ah,hwc,bw->abc", area_weights(180, 90), full, area_weights(320, 160), optimize=True)
    assert np.abs(shown(path, 90, 160) - exact).mean() < 1.5


def test_numbers_can_be_read(tmp_path: Path) -> None:
    """The pictures that other tests count by survive coding."""
    path = make_video(tmp_path / "a.mp4", [numbered(170)])
    assert np.abs(shown(path, 48, 64).astype(int) - numbered(170)).mean() < 5


@pytest.mark.parametrize(("height", "width"), [(16, 1600), (1600, 16), (1, 100_000), (8000, 8), (17, 1501)])
@pytest.mark.parametrize("target", [(544, 960), (48, 64)])
def test_strips_are_cut_before_they_are_enlarged(height: int, width: int, target: tuple[int, int]) -> None:
    """They are cropped to their centre like any picture, with memory that depends on the target size."""
    strip = np.zeros((height, width, 3), np.uint8)
    along = np.s_[:, width // 2 :] if width > height else np.s_[height // 2 :]
    strip[along] = 200
    seen = Fitter(target).image(strip)
    assert seen.shape == (*target, 3)
    if width > height:
        seen = seen.transpose(1, 0, 2)
    first, last = seen[: len(seen) // 8], seen[-(len(seen) // 8) :]
    if min(height, width) > 1:
        assert first.max() < 20  # Lanczos swings a little beside the edge
        assert last.min() > 180


def test_a_cut_strip_is_what_the_whole_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rough = np.random.default_rng(2).integers(0, 256, (8, 300, 3), dtype=np.uint8)
    strip = np.asarray(Image.fromarray(rough).resize((1200, 32), Image.Resampling.BICUBIC))
    cut = Fitter((96, 128)).image(strip).astype(int)
    monkeypatch.setattr(pixels, "_MOSTLY_CUT", 10**9)
    assert np.abs(Fitter((96, 128)).image(strip) - cut).max() <= 1


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1)])
def test_a_turned_strip(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    picture = np.zeros((32, 640, 3), np.uint8)
    picture[:, 320:] = 200
    path = turn(make_video(tmp_path / "a.mp4", [picture], options={"crf": "1"}), matrix)
    seen = shown(path, 64, 96)
    first, last = (seen[:8], seen[-8:]) if matrix[0] == 0 else (seen[:, :8], seen[:, -8:])
    dark, bright = (first, last) if first.mean() < last.mean() else (last, first)
    assert dark.max() < 20
    assert bright.min() > 180


@pytest.mark.parametrize("kind", ["video", "image"])
def test_the_resampler_refusing_a_picture_is_an_error_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: MediaKind
) -> None:
    path = make_video(tmp_path / "a.mp4", 3) if kind == "video" else tmp_path / "a.png"
    if kind == "image":
        Image.fromarray(numbered(1)).save(path)
    info = probe(path, kind)

    def refuse(*_: object) -> None:
        raise av.error.ArgumentError(22, "Invalid argument")

    monkeypatch.setattr(Fitter, "_rgb", refuse)
    with pytest.raises(MediaError, match=rf"{path.name}: its pictures cannot be resized: Invalid argument") as caught:
        list(read_clips(path, kind, [Clip(0, 1, 32, 32, "24")], DatasetSettings(video_directory="."), info))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_picture_for_which_there_is_no_memory_is_an_error_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: MediaKind
) -> None:
    path = make_video(tmp_path / "a.mp4", 3) if kind == "video" else tmp_path / "a.png"
    if kind == "image":
        Image.fromarray(numbered(1)).save(path)
    info = probe(path, kind)

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Fitter, "_rgb", refuse)
    with pytest.raises(MediaError, match=rf"{path.name}: needs more memory than is free"):
        list(read_clips(path, kind, [Clip(0, 1, 32, 32, "24")], DatasetSettings(video_directory="."), info))
    monkeypatch.setattr(Image, "open", refuse)
    if kind == "image":
        with pytest.raises(MediaError, match=r"a\.png: needs more memory than is free"):
            probe(path, kind)
