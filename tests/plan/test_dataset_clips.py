"""The clips that a dataset's files give, what they lack, and that no file is looked into twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hv15.config.presets import preset_text
from hv15.data import probed
from hv15.plan.dataset_clips import dataset_clips
from hv15.project import Project
from tests.data.videos import make_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip of both lengths, one of the shorter length alone, and a file that is no video."""
    config = yaml.safe_load(preset_text("t2v-24gb"))
    config["datasets"] = [
        {"video_directory": "clips", "resolution": [64, 64], "target_frames": [5, 17], "enable_bucket": False}
    ]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "clips").mkdir()
    make_video(tmp_path / "clips" / "long.mp4", frames=20)
    make_video(tmp_path / "clips" / "short.mp4", frames=8)
    (tmp_path / "clips" / "torn.mp4").write_bytes(b"no video")
    for name in ("long", "short", "torn"):
        (tmp_path / "clips" / f"{name}.txt").write_text(f"caption of {name}")
    return tmp_path


def test_what_the_files_give(folder: Path) -> None:
    clips = dataset_clips(Project(folder / "config.yaml"))
    by_media: dict[str, list[int]] = {}
    for media, clip in clips.found:
        by_media.setdefault(media, []).append(clip.frames)
    assert sorted(map(sorted, by_media.values())) == [[5], [5, 17]]
    (unusable,) = clips.unusable
    assert "torn.mp4" in unusable.message
    assert clips.too_short == [f"{folder}/clips/short.mp4: no clip of 17 frames"]
    assert clips.notes == {}


def test_no_file_is_looked_into_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(folder / "config.yaml")
    first = dataset_clips(project)
    assert dataset_clips(project) is first
    monkeypatch.setattr(probed, "probe", lambda *_: pytest.fail("looked into again"))
    (folder / "clips" / "torn.mp4").unlink()
    (folder / "clips" / "torn.txt").unlink()
    assert dataset_clips(Project(folder / "config.yaml")).found == first.found
