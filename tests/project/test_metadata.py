"""What files say about themselves: `hv15 show` asks any of them, a plan only those that are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hv15.data.encode import write_image, write_images, write_video
from hv15.errors import UserError
from hv15.project import metadata
from hv15.project.metadata import product_metadata, read_metadata
from tests.workflow.stub_hv15 import write_safetensors

TELLS = {"hv15.made_from": "{}", "other": "a “cat”"}
FRAMES = np.zeros((3, 16, 16, 3), np.uint8)

WRITERS: dict[str, Callable[[Path], None]] = {
    "a.safetensors": lambda path: write_safetensors(path, TELLS),
    "a.mp4": lambda path: write_video(path, FRAMES, metadata=TELLS),
    "a.png": lambda path: write_image(path, FRAMES[0], TELLS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_both_readers_give_what_was_written(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert read_metadata(tmp_path / name) == product_metadata(tmp_path / name) == TELLS


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_of_a_file_that_lacks_its_end_a_plan_believes_nothing(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    assert read_metadata(tmp_path / name) == TELLS
    assert product_metadata(tmp_path / name) == {}


def test_a_folder_of_images_tells_when_all_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a.frames"
    write_images(folder, FRAMES, TELLS)
    assert product_metadata(folder) == TELLS
    (folder / "0002.png").write_bytes((folder / "0002.png").read_bytes()[:-3])
    assert product_metadata(folder) == {}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_damaged_is_named(name: str, tmp_path: Path) -> None:
    for content in (b"", b"damaged"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{tmp_path / name}"):
            read_metadata(tmp_path / name)


def test_another_kind_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("{}")
    assert read_metadata(tmp_path / "a.txt") == product_metadata(tmp_path / "a.txt") == {}


def box(name: bytes, content: bytes, *, wide: bool = False) -> bytes:
    if wide:
        return (1).to_bytes(4, "big") + name + (len(content) + 16).to_bytes(8, "big") + content
    return (len(content) + 8).to_bytes(4, "big") + name + content


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99), True),
        (box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99, wide=True), True),
        (box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99, wide=True)[:-1], False),
        (box(b"ftyp", b"isom") + b"left over", False),
        (box(b"ftyp", b"isom") + bytes(16), False),
    ],
    ids=["whole", "wide box", "cut wide box", "left over", "zeros"],
)
def test_the_boxes_of_an_mp4_fill_its_file(content: bytes, whole: bool, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert metadata._is_whole_mp4(tmp_path / "a.mp4") is whole
