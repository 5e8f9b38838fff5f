"""Written samples come back: pixels, rate, metadata; and equal input gives equal bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hv15.config.datasets import DatasetSettings
from hv15.data import encode
from hv15.data.animated_png import write_animation
from hv15.data.clips import Clip
from hv15.data.decode import read_clips
from hv15.data.encode import read_video_metadata, write_image, write_images, write_video
from hv15.data.pixels import Pixels
from hv15.data.probe import probe
from hv15.demo.clips import concept_scenes
from hv15.demo.world import Scene, render
from hv15.errors import UserError

RED = np.full((9, 32, 48, 3), (220, 40, 60), np.uint8)
METADATA = {
    "prompt": 'a "quoted" sign\nin two lines, ünïcödé 漢字 🎬',
    "seed": "123",
    "hv15.lora": "0" * 64,
    "empty": "",
}


def test_a_video_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "a.mp4"
    write_video(path, RED, 24, METADATA)
    info = probe(path, "video")
    assert (info.height, info.width, info.timeline.fps, len(info.timeline.times)) == (32, 48, Fraction(24), 9)
    ((_, shown),) = read_clips(path, "video", [Clip(0, 9, 32, 48, "24")], DatasetSettings(video_directory="."), info)
    assert np.abs(shown.astype(int) - RED).max() <= 3
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.format.name) == (1, 1, "yuv420p")
        assert container.streams.video[0].codec_context.name == "h264"
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_metadata_comes_back(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", RED, 24, METADATA)
    assert read_video_metadata(tmp_path / "a.mp4") == METADATA
    write_video(tmp_path / "b.mp4", RED)
    assert read_video_metadata(tmp_path / "b.mp4") == {}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (17, 64, 96, 3), dtype=np.uint8)
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", noise, 24, METADATA)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    write_video(tmp_path / "c.mp4", noise, 24, {**METADATA, "seed": "124"})
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "c.mp4").read_bytes()


def test_the_number_of_threads_does_not_follow_the_machine(tmp_path: Path) -> None:
    """x264's bytes depend on the number of threads, which x264 writes into the stream."""
    write_video(tmp_path / "a.mp4", np.zeros((2, 512, 64, 3), np.uint8))
    assert b" threads=4 " in (tmp_path / "a.mp4").read_bytes()


INSTRUCTIONS = {"DEFAULT": ["0", "SSE2", "SSE4.2"], "AVX2": ["AVX2"], "AVX512": ["AVX512"]}
"""What x264 can be told to use, by the capability of the processor from which on it runs there."""


def instructions_here() -> list[str]:
    """x264 told to use what this processor lacks would end the process."""
    levels = list(INSTRUCTIONS)
    here = torch.backends.cpu.get_cpu_capability()
    return [each for level in levels[: levels.index(here) + 1] for each in INSTRUCTIONS[level]]


@pytest.mark.parametrize("instructions", instructions_here())
def test_the_bytes_do_not_follow_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    """x264 must use fewer instructions than this processor may have; each set once gave other bytes."""
    scene = render(concept_scenes()[0], 0)
    write_video(tmp_path / "a.mp4", scene)
    monkeypatch.setattr(encode, "X264_PARAMS", f"{encode.X264_PARAMS}:asm={instructions}")
    write_video(tmp_path / "b.mp4", scene)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def encodings(path: Path, scene: Scene, times: int) -> int:
    """How many different files come of equal frames, when freed memory holds something else each time."""
    draw, found = np.random.default_rng(0), set()
    for _ in range(times):
        left = [draw.integers(0, 256, draw.integers(1, 200_000), dtype=np.uint8) for _ in range(20)]
        del left[::2]
        write_video(path, render(scene, 0))
        found.add(path.read_bytes())
    return len(found)


def test_the_bytes_do_not_follow_what_memory_held_before(tmp_path: Path) -> None:
    """With AVX-512, x264's lookahead made them differ."""
    assert [encodings(tmp_path / "a.mp4", scene, 5) for scene in concept_scenes()[::3]] == [1] * 4


@pytest.mark.slow
def test_the_bytes_do_not_follow_what_else_the_machine_does(tmp_path: Path) -> None:
    """Other programs keep all cores busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range((os.cpu_count() or 1) + 1)]
    try:
        assert [encodings(tmp_path / "a.mp4", scene, 50) for scene in concept_scenes()[1::3]] == [1] * 4
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("fps", [24, 16, 30, 29.97, 23.976])
def test_rates(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", RED, fps)
    assert float(probe(tmp_path / "a.mp4", "video").timeline.fps) == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (1, 31, 32, 3), (1, 32, 33, 3)])
def test_impossible_sizes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_video(tmp_path / "a.mp4", np.zeros(shape, np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"the previous sample")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hv15.atomic.os.fsync", full)
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written: No space left on device"):
        write_video(tmp_path / "a.mp4", RED)
    assert (tmp_path / "a.mp4").read_bytes() == b"the previous sample"
    assert len(list(tmp_path.iterdir())) == 1


def made_one_by_one(count: int, alive: list[int]) -> Iterator[Pixels]:
    """Frames that are counted while anything holds them."""
    made: list[weakref.ref[Pixels]] = []
    for number in range(count):
        frame = np.full((32, 48, 3), 5 * number, np.uint8)
        frame[number % 32] = 255
        made.append(weakref.ref(frame))
        yield frame
        del frame
        alive.append(sum(each() is not None for each in made))


WRITERS = {"a.mp4": write_video, "a.png": write_animation, "a.frames": write_images}


@pytest.mark.parametrize("name", WRITERS)
def test_frames_are_taken_one_at_a_time(tmp_path: Path, name: str) -> None:
    alive: list[int] = []
    WRITERS[name](tmp_path / name, made_one_by_one(30, alive))
    assert len(alive) == 30
    assert max(alive) <= 2
    whole = np.stack(list(made_one_by_one(30, [])))
    WRITERS[name](tmp_path / f"whole.{name}", whole)
    if name != "a.frames":
        assert (tmp_path / name).read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("after", [0, 3])
def test_frames_that_end_in_an_error_leave_the_former_file(tmp_path: Path, name: str, after: int) -> None:
    def broken() -> Iterator[Pixels]:
        yield from RED[:after]
        raise UserError("the model returned NaN")

    WRITERS[name](tmp_path / name, RED)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="NaN"):
        WRITERS[name](tmp_path / name, broken())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_images(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    for frames in (np.zeros((5, 16, 16, 3), np.uint8), noise):  # the second replaces the first
        write_images(tmp_path / "out", frames, {"prompt": "漢字"})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    with Image.open(tmp_path / "out" / "0002.png") as image:
        assert (np.asarray(image) == noise[2]).all()
        assert image.text["prompt"] == "漢字"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    write_image(tmp_path / "one.png", noise[0])
    with Image.open(tmp_path / "one.png") as image:
        assert (np.asarray(image) == noise[0]).all()
