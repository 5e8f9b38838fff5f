"""What media files show is remembered by content: the second look opens none, and finds the same."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data.index import FileIndex
from hv15.data.media import MediaError, MediaInfo
from hv15.data.probe import probe
from hv15.data.probed import Probed
from tests.data.scanned import scan
from tests.data.videos import make_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos of constant and of variable rate, with many key frames, without good times; and a folder of images."""
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "constant.mp4", 48, Fraction(24000, 1001))
    make_video(clips / "keys.mkv", 30, options={"g": "3"})
    times = [Fraction(number * number, 100) for number in range(12)]
    make_video(clips / "variable.mp4", 12, times=times, time_base=Fraction(1, 1000))
    make_video(clips / "counted.avi", 20)
    make_video(clips / "one.mp4", 1)
    (clips / "frames").mkdir()
    for number in range(3):
        Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(clips / "frames" / f"{number}.png")
    for path in list(clips.iterdir()):
        (clips / f"{path.stem}.txt").write_text("a clip")
    return clips


def look(clips: Path, memory: Path) -> list[MediaInfo]:
    """What every file shows, by a memory that is read anew."""
    sources = scan(DatasetSettings(video_directory=str(clips)), clips.parent)
    probed = Probed(memory / "probed.json")
    infos = [
        probed.info(source, key)
        for source, key in zip(sources, FileIndex(memory / "index.json").media_keys(sources), strict=True)
    ]
    probed.save()
    return infos


def refuse(path: Path, kind: str) -> MediaInfo:
    raise AssertionError(f"{path} was opened")


def test_the_second_look_opens_no_file_and_finds_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = [probe(info.path, info.kind) for info in look(folder, tmp_path)]
    assert {info.pts is None for info in truth} == {True, False}
    assert any(info.keyframes for info in truth)
    monkeypatch.setattr("hv15.data.probed.probe", refuse)
    assert look(folder, tmp_path) == truth


def test_a_moved_and_a_touched_file_are_known_by_their_content(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(folder, tmp_path)
    monkeypatch.setattr("hv15.data.probed.probe", refuse)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for path in moved.rglob("*"):
        os.utime(path, ns=(1, 1))
    after = look(moved, tmp_path)
    assert [info.timeline for info in after] == [info.timeline for info in before]
    assert all(info.path.is_relative_to(moved) for info in after)


def test_other_content_is_looked_into(folder: Path, tmp_path: Path) -> None:
    look(folder, tmp_path)
    make_video(folder / "constant.mp4", 10)
    assert len(look(folder, tmp_path)[0].timeline.times) == 10


def test_damage_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    """A disk that failed once may be read the next time."""
    look(folder, tmp_path)
    (folder / "one.mp4").write_bytes(b"no video")
    for _ in range(2):
        with pytest.raises(MediaError, match=r"one\.mp4"):
            look(folder, tmp_path)


def test_a_damaged_memory_is_thrown_away(folder: Path, tmp_path: Path) -> None:
    before = look(folder, tmp_path)
    memory = tmp_path / "probed.json"
    content = memory.read_bytes()
    memory.write_bytes(content.replace(b"[48,64,", b"[48,65,", 1))
    assert memory.read_bytes() != content
    assert look(folder, tmp_path) == before
    assert memory.read_bytes() == content
