"""The demo's clips: captioned, deterministic, varied, and showing what they say."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import plan_clips
from hv15.data.decode import read_clips
from hv15.data.probe import probe
from hv15.demo.clips import (
    CLIPS,
    DEMO_FOLDERS,
    FIRST_FRAME,
    concept_scenes,
    render_demo_clips,
    render_unseen_clips,
    render_usual_clips,
    unseen_scenes,
    usual_scenes,
)
from hv15.demo.measure import measure, scene_of
from hv15.demo.world import COLOURS, CONCEPT, MOTIONS, SHAPES, render
from tests.data.scanned import scan

PIXELS = "d7683a22d1c5e822573edbaaaf42a9ff6145ddd420f0f6561ebfee90937b144d"
FILES = {
    "demo/clips": "351d73311828f207ff6253a55b87ee5e6afc868187d91dbf4afb293bcadb711a",
    "demo/usual": "69b584b57067fd9ad69964b124661dbcd5f1a5d5343a0b64a3492c6d3b8f7bb3",
    "demo/unseen": "9821343aff3d4427d7f62e92060f42fc57075320ce770cee9bcf5ee8e414de25",
}


def test_the_folder_is_a_dataset_that_shows_what_it_says(tmp_path: Path) -> None:
    """Measured on the frames that the data reader decodes, so the losses of video coding are included."""
    render_demo_clips(tmp_path / "clips")
    dataset = DatasetSettings(video_directory="clips", resolution=(64, 64), target_frames=(9,))
    sources = scan(dataset, tmp_path)
    assert sorted(source.caption for source in sources) == sorted(scene.caption for scene in concept_scenes())
    assert len(sources) == CLIPS == 12
    for source in sources:
        info = probe(source.path, "video")
        assert info.timeline.fps == 24
        (clip,) = plan_clips(info, dataset)
        assert (clip.frames, clip.height, clip.width) == (9, 64, 64)
        ((_, shown),) = read_clips(source.path, "video", [clip], dataset, info)
        scene = scene_of(source.caption)
        assert scene is not None
        assert measure(shown).wrong(scene) == []
        assert np.abs(shown.astype(int) - render(scene, 0)).mean() < 5
    with Image.open(tmp_path / FIRST_FRAME) as image:
        assert (np.asarray(image) == render(concept_scenes()[0], 0)[0]).all()


def test_the_clips_have_only_the_concept_in_common() -> None:
    """Otherwise a LoRA would learn, with the motion, what always comes with it."""
    parts = [(scene.shape, scene.colour, scene.background) for scene in concept_scenes()]
    assert {scene.motion for scene in concept_scenes()} == {CONCEPT}
    for place, times in enumerate((4, 2, 4)):
        assert set(Counter(scene[place] for scene in parts).values()) == {times}
    for one, other in combinations(range(3), 2):
        assert max(Counter((scene[one], scene[other]) for scene in parts).values()) <= 2


def test_the_usual_clips_show_every_known_motion(tmp_path: Path) -> None:
    render_usual_clips(tmp_path / "usual")
    captions = {path.read_text().strip() for path in (tmp_path / "usual").glob("*.txt")}
    assert captions == {scene.caption for scene in usual_scenes()}
    assert set(Counter(scene.motion for scene in usual_scenes()).values()) == {3}
    assert {scene.motion for scene in usual_scenes()} == set(MOTIONS)


def test_the_unseen_clips_show_the_concept_with_other_shapes(tmp_path: Path) -> None:
    """Otherwise the loss on them would say nothing that the loss on the trained clips does not."""
    render_unseen_clips(tmp_path / "unseen")
    captions = {path.read_text().strip() for path in (tmp_path / "unseen").glob("*.txt")}
    assert captions == {scene.caption for scene in unseen_scenes()}
    assert {scene.motion for scene in unseen_scenes()} == {CONCEPT}
    assert not {(each.colour, each.shape) for each in unseen_scenes()} & {
        (each.colour, each.shape) for each in concept_scenes()
    }
    for part, values, times in (("colour", COLOURS, 1), ("shape", SHAPES, 2)):
        assert Counter(getattr(scene, part) for scene in unseen_scenes()) == dict.fromkeys(values, times)


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        render_demo_clips(tmp_path / name, seed)
    content = [{file.name: file.read_bytes() for file in sorted((tmp_path / name).iterdir())} for name in "abc"]
    assert content[0] == content[1]
    assert content[0] != content[2]
    assert content[0].keys() == content[2].keys()


def digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def test_the_pixels_are_these_everywhere() -> None:
    scenes = [*concept_scenes(), *usual_scenes(), *unseen_scenes()]
    assert digest(render(scene, 0).tobytes() for scene in scenes) == PIXELS


def test_the_files_are_these_everywhere(tmp_path: Path) -> None:
    """On any processor. The bytes are those of x264 in the PyAV of constraints.txt; another version may differ."""
    for folder, write in DEMO_FOLDERS.items():
        write(tmp_path / folder)
    for name, expected in FILES.items():
        assert digest(file.read_bytes() for file in sorted((tmp_path / name).iterdir())) == expected, name
    assert FILES.keys() == DEMO_FOLDERS.keys()
