"""Masks: whose they are, what fits, and the weights of latent positions against a closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import plan_clips
from hv15.data.decode import read_clips
from hv15.data.mask_weights import Weights, grey, latent_weights, read_weights
from hv15.data.masks import mask_stem
from hv15.data.media import MediaError, MediaKind
from hv15.data.probe import probe
from hv15.data.scan import survey
from tests.data.test_scan import put
from tests.data.videos import make_video

VIDEO = DatasetSettings(video_directory=".", resolution=(64, 64), enable_bucket=False, target_frames=(5, 9))
IMAGE = DatasetSettings(image_directory=".", resolution=(64, 64), enable_bucket=False)


def picture(path: Path, values: NDArray[np.integer], mode: str | None = None) -> Path:
    Image.fromarray(values.astype(np.uint8), mode).save(path)
    return path


def half(height: int = 48, width: int = 64) -> NDArray[np.int64]:
    """Black at the left, white at the right."""
    return np.repeat(255 * (np.arange(width) >= width // 2)[None, :], height, 0)


def weights_of(mask: Path, clip: Path, dataset: DatasetSettings = VIDEO, kind: MediaKind = "image") -> list[Weights]:
    info = probe(clip, "video" if dataset.kind == "video" else "image")
    return [found for _, found in read_weights(probe(mask, kind), info, plan_clips(info, dataset), dataset)]


# -- names --


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("walk.mask.png", "walk"),
        ("walk.MASK.PNG", "walk"),
        ("a.b.mask.mp4", "a.b"),
        ("walk.mask", "walk"),
        ("walk.mask.txt", None),
        ("mask.png", None),
        (".mask.png", None),
        ("walk_mask.png", None),
        ("walk.masked.png", None),
    ],
)
def test_names_of_masks(name: str, stem: str | None) -> None:
    assert mask_stem(name) == stem


def test_a_mask_is_never_a_clip(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mov", "a.mask.mp4", "b.mask.png", "d/1.png", "d.mask/1.png")
    (tmp_path / "d.txt").write_text("a walk")
    (tmp_path / "d.mask.txt").write_text("not a caption")
    found = survey(VIDEO, tmp_path)
    assert not found.problems
    masks = {source.path.name: source.mask and source.mask.path.name for source in found.sources}
    assert masks == {"a.mp4": "a.mask.mp4", "b.mp4": "b.mask.png", "c.mov": None, "d": "d.mask"}
    assert [source.mask.kind for source in found.sources if source.mask] == ["video", "image", "frames"]
    off = survey(VIDEO.model_copy(update={"use_masks": False}), tmp_path)
    assert [source._replace(mask=None) for source in found.sources] == off.sources


def test_images_and_videos_share_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.mask.png", "b.mp4", "b.mask.png")
    assert [(s.path.name, bool(s.mask)) for s in survey(IMAGE, tmp_path).sources] == [("a.png", True)]
    assert [(s.path.name, bool(s.mask)) for s in survey(VIDEO, tmp_path).sources] == [("b.mp4", True)]
    assert not survey(IMAGE, tmp_path).problems
    assert not survey(VIDEO, tmp_path).problems


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        (["a.mp4", "b.mask.png"], "video", "b.mask.png: a mask, but there is no clip of its name"),
        (["a.mp4", "a.mask.png", "a.mask.mp4"], "video", "a.mask.mp4: one of several masks of a clip"),
        (["a.png", "a.mask.mp4"], "image", "a.mask.mp4: a mask of the image"),
    ],
)
def test_masks_that_cannot_be_used(names: list[str], kind: str, words: str, tmp_path: Path) -> None:
    put(tmp_path, *names)
    dataset = VIDEO if kind == "video" else IMAGE
    (problem,) = survey(dataset, tmp_path).problems
    assert words in str(problem)
    assert not survey(dataset.model_copy(update={"use_masks": False}), tmp_path).problems


def test_masks_of_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "m.png")
    rows = [{"video_path": "a.mp4", "caption": "a", "mask_path": "m.png"}, {"video_path": "b.mp4", "caption": "b"}]
    listed = DatasetSettings(video_jsonl_file="rows.jsonl", resolution=(64, 64))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [s.mask and s.mask.path.name for s in survey(listed, tmp_path).sources] == ["m.png", None]
    rows[1]["mask_path"] = "missing.png"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (problem,) = survey(listed, tmp_path).problems
    assert "rows.jsonl:2: missing.png does not exist" in str(problem)


# -- weights --


def test_a_latent_position_counts_as_the_mean_of_what_it_covers() -> None:
    weights = np.random.default_rng(0).random((9, 32, 48)).astype(np.float32)
    found = latent_weights(weights)
    assert found.shape == (3, 2, 3)
    for row in range(2):
        for column in range(3):
            cell = weights[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            expected = [cell[:1].mean(), cell[1:5].mean(), cell[5:9].mean()]
            assert found[:, row, column] == pytest.approx(expected, rel=1e-5)


def test_grey_is_the_luma() -> None:
    colours = np.array([[[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]]], np.uint8)
    assert grey(colours)[0, 0].tolist() == pytest.approx([1, 0, 0.299, 0.587, 0.114])
    grades = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, 3)
    assert grey(grades)[0, 0] == pytest.approx(np.arange(256) / 255)


def test_an_image_holds_for_all_frames(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", 9, size=(64, 64))
    mask = picture(tmp_path / "a.mask.png", half(64, 64))
    short, long = weights_of(mask, clip)
    assert (short.shape, long.shape) == ((2, 4, 4), (3, 4, 4))
    assert np.array_equal(long, np.tile([0, 0, 1, 1], (3, 4, 1)))
    assert np.array_equal(short, long[:2])


def test_a_mask_is_cropped_as_its_clip(tmp_path: Path) -> None:
    """Drawn as the clip's own picture: what is cut off there is cut off here, also at another size."""
    ramp = np.repeat(np.arange(256)[None, :], 64, 0)  # 4 : 1
    clip = picture(tmp_path / "a.png", ramp)
    info = probe(clip, "image")
    (window,) = plan_clips(info, IMAGE)
    ((_, pixels),) = read_clips(clip, "image", [window], IMAGE)
    same = weights_of(picture(tmp_path / "same.png", ramp), clip, IMAGE)[0]
    assert same == pytest.approx(latent_weights(grey(pixels)), abs=1e-6)
    smaller = weights_of(picture(tmp_path / "smaller.png", ramp[::2, ::2]), clip, IMAGE)[0]
    assert smaller == pytest.approx(same, abs=0.02)


def test_frames_of_a_video_mask_belong_to_those_of_the_clip(tmp_path: Path) -> None:
    """At 48 fps every second frame is used, and the same of the mask, although its file says 10 fps."""
    clip = make_video(tmp_path / "a.mp4", 18, 48, size=(64, 64))
    grades = [np.full((64, 64, 3), 12 * number, np.uint8) for number in range(18)]
    mask = make_video(tmp_path / "a.mask.mp4", grades, 10, size=(64, 64), pix_fmt="yuv444p", options={"qp": "0"})
    _, long = weights_of(mask, clip, kind="video")
    used = np.arange(0, 18, 2) * 12 / 255
    expected = [used[0], used[1:5].mean(), used[5:9].mean()]
    assert long.mean((1, 2)) == pytest.approx(expected, abs=0.01)
    folder = tmp_path / "a.mask"
    folder.mkdir()
    for number, grade in enumerate(grades):
        picture(folder / f"{number}.png", grade)
    assert weights_of(folder, clip, kind="frames")[1].mean((1, 2)) == pytest.approx(expected, abs=1e-4)


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    clip = picture(tmp_path / "a.png", half(64, 64))
    white = np.full((64, 64, 4), 255)
    white[:, :32, 3] = 0
    own = IMAGE.model_copy(update={"background": "#ffffff"})
    assert weights_of(picture(tmp_path / "a.mask.png", white), clip, own)[0][0, 0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("size", "frames", "words"),
    [
        ((64, 48), 9, "a mask of 48x64 pixels, but a.mp4 has 64x64; expected the same aspect ratio"),
        ((64, 64), 8, "a mask of 8 frames, but a.mp4 has 9; expected as many"),
    ],
)
def test_a_mask_that_does_not_fit(size: tuple[int, int], frames: int, words: str, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", 9, size=(64, 64))
    mask = make_video(tmp_path / "a.mask.mp4", frames, size=size)
    with pytest.raises(MediaError, match=words):
        weights_of(mask, clip, kind="video")
