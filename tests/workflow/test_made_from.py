"""What products tell of themselves: read from whole files alone, and read again only when a file has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hv15.data.encode import write_image, write_images, write_video
from hv15.digest import digest
from hv15.records import formats
from hv15.records.json_values import JsonObject
from hv15.remembered import Memory
from hv15.workflow import made_from
from hv15.workflow.made_from import MadeFromReader, conversion_spec
from tests.workflow.stub_hv15 import write_safetensors

WANTED: JsonObject = {"train": {"seed": 7, "rate": 0.1}, "name": "a “cat”", "none": None}
TELLS = {"hv15.made_from": json.dumps(WANTED), "other": "words"}
FRAMES = np.zeros((3, 16, 16, 3), np.uint8)

WRITERS: dict[str, Callable[[Path, dict[str, str]], None]] = {
    "a.safetensors": write_safetensors,
    "a.mp4": lambda path, metadata: write_video(path, FRAMES, metadata=metadata),
    "a.png": lambda path, metadata: write_image(path, FRAMES[0], metadata),
    "a.frames": lambda path, metadata: write_images(path, FRAMES, metadata),
}
"""Each kind of product, as the jobs write it."""

FILES = [name for name in WRITERS if name != "a.frames"]


def tells(path: Path) -> JsonObject | None:
    return MadeFromReader(path.parent / "memory.json").made_from(path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_product_tells_what_it_was_made_from(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, TELLS)
    assert tells(tmp_path / name) == WANTED


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("metadata", [{}, {"hv15.made_from": "oops"}, {"hv15.made_from": "[1]"}], ids=str)
def test_one_that_does_not_tell(name: str, metadata: dict[str, str], tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, metadata)
    assert tells(tmp_path / name) is None


@pytest.mark.parametrize("name", ["a.safetensors", "a.mp4", "a.png", "a.frames", "a.txt"])
def test_one_that_is_not_there_or_is_of_another_kind(name: str, tmp_path: Path) -> None:
    assert tells(tmp_path / name) is None
    (tmp_path / "a.txt").write_text(TELLS["hv15.made_from"])
    assert tells(tmp_path / "a.txt") is None


@pytest.mark.parametrize("name", FILES)
def test_a_torn_file_tells_nothing(name: str, tmp_path: Path) -> None:
    """The metadata of an mp4 comes first, so a cut one still has it."""
    WRITERS[name](tmp_path / name, TELLS)
    whole = (tmp_path / name).read_bytes()
    lengths = [0, 1, 7, len(whole) // 3, len(whole) // 2, len(whole) - 20, len(whole) - 1]
    torn = tmp_path / f"torn{Path(name).suffix}"
    for length in lengths:
        torn.write_bytes(whole[:length])
        assert tells(torn) is None, length
    torn.write_bytes(whole)
    assert tells(torn) == WANTED


def test_a_folder_of_images_is_read_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a.frames"
    write_images(folder, FRAMES, TELLS)
    last = folder / "0002.png"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert tells(folder) is None
    last.write_bytes(whole)
    assert tells(folder) == WANTED
    shutil.rmtree(folder)
    folder.mkdir()
    assert tells(folder) is None, "an empty folder"


@pytest.mark.parametrize(("number", "expected"), [(str(formats.CONVERSION), formats.CONVERSION), ("new", 0), ("", 0)])
def test_a_converted_lora_tells_of_its_conversion_too(number: str, expected: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    told = {"hv15.convert.trained": digest(WANTED), "hv15.convert.about": "told"}
    write_safetensors(path, {**told, "hv15.convert.to": "comfyui", "hv15.convert.format": number})
    assert tells(path) == conversion_spec(digest(WANTED), "comfyui", expected, "told")


def test_what_no_reader_expects_tells_nothing(tmp_path: Path) -> None:
    """It counts as missing, as a torn file does: a plan continues."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"hv15.convert.to": "comfyui", "hv15.convert.format": "9" * 5000})
    assert tells(path) is None


# -- the memory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def product(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "a.safetensors", TELLS)
    return tmp_path / "a.safetensors"


@pytest.fixture
def memory(product: Path, tmp_path: Path) -> Path:
    """The memory of a plan that has read the product."""
    first = MadeFromReader(tmp_path / "hidden/told.json")
    first.made_from(product)
    first.made_from(tmp_path / "gone.mp4")
    first.save()
    return tmp_path / "hidden/told.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is read from now on."""
    seen: list[Path] = []
    read = made_from.product_metadata
    monkeypatch.setattr(made_from, "product_metadata", lambda path: seen.append(path) or read(path))
    return seen


def test_a_file_that_has_not_changed_is_not_read_again(product: Path, memory: Path, reads: list[Path]) -> None:
    assert MadeFromReader(memory).made_from(product) == WANTED
    assert reads == []


@pytest.mark.parametrize("change", ["time", "content", "another file of the same size and time"])
def test_a_file_that_has_changed_is_read_again(product: Path, memory: Path, reads: list[Path], change: str) -> None:
    before, wanted = product.stat(), WANTED
    if change == "time":
        os.utime(product, (1e9, 1e9))
    elif change == "content":
        wanted = {"other": 1}
        write_safetensors(product, {"hv15.made_from": json.dumps(wanted)})
    else:
        other = product.with_name("b.safetensors")
        other.write_bytes(product.read_bytes().replace(b"0.1", b"0.2"))
        os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
        other.replace(product)
        wanted = {**WANTED, "train": {"seed": 7, "rate": 0.2}}
        assert (product.stat().st_size, product.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert MadeFromReader(memory).made_from(product) == wanted
    assert reads == [product]


def test_a_folder_has_changed_when_one_of_its_images_has(tmp_path: Path, reads: list[Path]) -> None:
    folder, memory = tmp_path / "a.frames", tmp_path / "told.json"
    write_images(folder, FRAMES, TELLS)
    for touched, count in ((False, 1), (False, 1), (True, 2)):
        if touched:
            os.utime(folder / "0001.png", (1e9, 1e9))
        found = MadeFromReader(memory)
        assert found.made_from(folder) == WANTED
        found.save()
        assert len(reads) == count


def test_what_tells_nothing_is_remembered_too(tmp_path: Path, reads: list[Path]) -> None:
    write_safetensors(tmp_path / "a.safetensors", {})
    for _ in range(2):
        found = MadeFromReader(tmp_path / "told.json")
        assert found.made_from(tmp_path / "a.safetensors") is None
        found.save()
    assert len(reads) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 1, "products": {"PRODUCT": [[], {}]}}',
        b"version 2 sha256 0\n{}",
    ],
)
def test_a_memory_that_is_damaged_is_made_again(product: Path, memory: Path, content: bytes) -> None:
    memory.write_bytes(content.replace(b"PRODUCT", str(product).encode()))
    found = MadeFromReader(memory)
    assert found.made_from(product) == WANTED
    found.save()
    assert str(product) in memory.read_text()


def test_a_memory_that_cannot_be_written_is_done_without(product: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").write_text("in the way")
    found = MadeFromReader(tmp_path / "hidden/told.json")
    assert found.made_from(product) == WANTED
    found.save()


def test_files_that_are_gone_are_forgotten(product: Path, memory: Path) -> None:
    """With the next file that is read: else a memory would know every sample of every name that a project ever had."""
    other = product.with_name("b.safetensors")
    product.rename(other)
    again = MadeFromReader(memory)
    assert again.made_from(other) == WANTED
    again.save()
    assert [*Memory(memory, made_from.VERSION, "").entries] == [str(other)]


def test_nothing_new_is_nothing_written(product: Path, memory: Path) -> None:
    before = memory.stat().st_mtime_ns, memory.stat().st_ino
    again = MadeFromReader(memory)
    again.made_from(product)
    again.save()
    assert (memory.stat().st_mtime_ns, memory.stat().st_ino) == before
