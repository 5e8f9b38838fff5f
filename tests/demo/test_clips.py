"""The demo's clips: captioned, deterministic, and showing what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import plan_clips
from hv15.data.decode import read_clips
from hv15.data.probe import probe
from hv15.data.scan import scan
from hv15.demo.clips import CLIPS, COLOURS, FIRST_FRAME, MOTIONS, DemoClip, render, render_demo_clips


def test_the_folder_is_a_dataset(tmp_path: Path) -> None:
    render_demo_clips(tmp_path / "clips")
    dataset = DatasetSettings(video_directory="clips", resolution=(64, 64), target_frames=(9,))
    sources = scan(dataset, tmp_path)
    assert sorted(source.caption for source in sources) == sorted(clip.caption for clip in CLIPS)
    assert 6 <= len(sources) <= 8
    assert any('"GO"' in source.caption for source in sources)
    for source in sources:
        info = probe(source.path, "video")
        assert info.timeline.fps == 24
        (clip,) = plan_clips(info, dataset)
        assert (clip.frames, clip.height, clip.width) == (9, 64, 64)
        ((_, shown),) = read_clips(source.path, "video", [clip], dataset, info)
        rendered = render(next(c for c in CLIPS if c.name == source.path.stem))[:9]
        assert np.abs(shown.astype(int) - rendered).mean() < 5
    with Image.open(tmp_path / FIRST_FRAME) as image:
        assert (np.asarray(image) == render(CLIPS[0])[0]).all()


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        render_demo_clips(tmp_path / name, seed)
    content = [{file.name: file.read_bytes() for file in sorted((tmp_path / name).iterdir())} for name in "abc"]
    assert content[0] == content[1]
    assert content[0] != content[2]
    assert content[0].keys() == content[2].keys()


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_clips_show_what_they_say(clip: DemoClip) -> None:
    frames = render(clip).astype(int)
    assert frames.shape == (clip.frames, 64, 64, 3)
    assert clip.frames % 4 == 1
    fore, back = (np.array(COLOURS[name]) for name in (clip.colour, clip.background))
    below = frames[:, 20:] if clip.word else frames
    shape = np.abs(below - fore).sum(axis=3) < np.abs(below - back).sum(axis=3)
    assert (frames[:, 0, 0] == back).all()
    centres = np.array([np.argwhere(mask).mean(axis=0) for mask in shape])
    steps = np.diff(centres, axis=0).mean(axis=0)
    down, right = MOTIONS[clip.motion]
    assert np.sign(np.round(steps, 1)).tolist() == [down, right]
    edges = np.abs(frames - fore).sum(axis=3) * np.abs(frames - back).sum(axis=3) > 0
    if clip.shape != "square":
        assert edges.any(), "anti-aliased"
