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
from hv15.demo.clips import CLIPS, FIRST_FRAME, concept_scenes, render_demo_clips, render_usual_clips, usual_scenes
from hv15.demo.measure import measure, scene_of
from hv15.demo.world import CONCEPT, MOTIONS, render
from tests.data.scanned import scan

PIXELS = "a6721541998d809d02eb04adb90d1dcd30f9870e8d262a19e5fe7410e051dc19"
FILES = {
    "clips": "351d73311828f207ff6253a55b87ee5e6afc868187d91dbf4afb293bcadb711a",
    "usual": "69b584b57067fd9ad69964b124661dbcd5f1a5d5343a0b64a3492c6d3b8f7bb3",
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
    scenes = [*concept_scenes(), *usual_scenes()]
    assert digest(render(scene, 0).tobytes() for scene in scenes) == PIXELS


def test_the_files_are_these_everywhere(tmp_path: Path) -> None:
    """On any processor. The bytes are those of x264 in the PyAV of constraints.txt; another version may differ."""
    render_demo_clips(tmp_path / "clips")
    render_usual_clips(tmp_path / "usual")
    for name, expected in FILES.items():
        assert digest(file.read_bytes() for file in sorted((tmp_path / name).iterdir())) == expected, name
