"""The content index: keys follow content, files are hashed only when they changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.index import FileIndex
from hv15.data.media import MediaError, Source
from tests.data.scanned import scan


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(f"content of {name}".encode())
        (tmp_path / f"{name}.txt").write_text(name)
    return tmp_path


def found(folder: Path) -> list[Source]:
    return scan(DatasetSettings(video_directory="."), folder)


def keys(folder: Path, hashed: list[int] | None = None) -> list[str]:
    """Keys by a fresh index; `hashed` collects the bytes that had to be read."""
    progress = None if hashed is None else lambda done, total: hashed.append(total)
    return FileIndex(folder / "index.json").media_keys(found(folder), progress)


def remembered(folder: Path) -> int:
    """How many files the index knows."""
    return len(json.loads((folder / "index.json").read_bytes().partition(b"\n")[2]))


def test_a_key_is_the_sha256_of_the_bytes(clips: Path) -> None:
    assert keys(clips) == [hashlib.sha256(f"content of {name}".encode()).hexdigest() for name in "abc"]


def test_only_changed_files_are_hashed(clips: Path) -> None:
    first: list[int] = []
    before = keys(clips, first)
    assert first == [36, 36, 36]
    again: list[int] = []
    assert keys(clips, again) == before
    assert again == []
    (clips / "b.mp4").write_bytes(b"other stuff")
    changed: list[int] = []
    after = keys(clips, changed)
    assert changed == [11]
    assert [x == y for x, y in zip(before, after, strict=True)] == [True, False, True]


def test_an_edit_that_keeps_size_and_time_is_seen_by_the_inode(clips: Path) -> None:
    before = keys(clips)
    status = (clips / "a.mp4").stat()
    (clips / "new").write_bytes(b"CONTENT OF A")
    os.utime(clips / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (clips / "new").rename(clips / "a.mp4")
    assert keys(clips)[0] != before[0]


def test_touching_and_renaming_keep_the_key(clips: Path) -> None:
    before = keys(clips)
    os.utime(clips / "a.mp4", ns=(1, 1))
    (clips / "b.mp4").rename(clips / "d.mp4")
    (clips / "b.txt").rename(clips / "d.txt")
    assert keys(clips) == [before[0], before[2], before[1]]


def test_equal_names_in_two_folders_do_not_collide(tmp_path: Path) -> None:
    sources = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(folder.encode())
        (tmp_path / folder / "x.txt").write_text("x")
        sources += found(tmp_path / folder)
    one, two = FileIndex(tmp_path / "index.json").media_keys(sources)
    assert one != two


def test_a_folder_of_images_is_named_by_its_pictures_in_order(tmp_path: Path) -> None:
    """The names themselves do not matter, but their natural order does: 2 comes before 10."""

    def key(folder: str, names: dict[str, bytes]) -> str:
        for name, content in names.items():
            (tmp_path / folder / "clip").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "clip" / name).write_bytes(content)
        (tmp_path / folder / "clip.txt").write_text("x")
        return keys(tmp_path / folder)[0]

    first = key("a", {"f2.png": b"one", "f10.png": b"two", "note.txt": b"no picture"})
    assert key("b", {"0001.png": b"one", "0002.png": b"two"}) == first
    assert key("c", {"f2.png": b"two", "f10.png": b"one"}) != first
    assert key("d", {"f2.png": b"one", "f10.png": b"two", "f11.png": b"two"}) != first


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"version": 99, "files": {}}', b"version 2 sha256 0\n{}", b"\xff\xfe"],
)
def test_a_damaged_index_is_computed_again(clips: Path, damage: bytes) -> None:
    before = keys(clips)
    (clips / "index.json").write_bytes(damage)
    assert keys(clips) == before
    assert remembered(clips) == 3


def test_a_folder_that_cannot_be_written_costs_time_alone(clips: Path) -> None:
    """A store may be there to be read only. (A file in the place of the folder: root may write into any folder.)"""
    (clips / "store").write_text("no folder")
    index = FileIndex(clips / "store" / "index.json")
    assert index.media_keys(found(clips)) == keys(clips)


def test_a_flipped_bit_in_the_index_is_found(clips: Path) -> None:
    """It would give a file another key, and so encode it again under a wrong name."""
    before, content = keys(clips), (clips / "index.json").read_bytes()
    place = content.index(before[0].encode()) + 5
    (clips / "index.json").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert keys(clips) == before


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_kept(clips: Path) -> None:
    sources = found(clips)
    (clips / "b.mp4").unlink()
    with pytest.raises(MediaError, match=r"b\.mp4: cannot be read"):
        FileIndex(clips / "index.json").media_keys(sources)
    hashed: list[int] = []
    assert len(keys(clips, hashed)) == 2
    assert sum(hashed[:1]) <= 12


def test_a_file_that_changes_after_the_scan_is_an_error(clips: Path) -> None:
    """Its key would name other content than in the plan."""
    sources = found(clips)
    (clips / "b.mp4").write_bytes(b"still being copied")
    with pytest.raises(MediaError, match=r"b\.mp4: changed while it was read"):
        FileIndex(clips / "index.json").media_keys(sources)


def test_a_moved_folder_is_not_hashed_again(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = keys(clips)
    moved = clips.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    hashed: list[int] = []
    assert keys(moved, hashed) == before
    assert hashed == []


def test_another_file_under_a_known_name_is_hashed(clips: Path) -> None:
    before = keys(clips)
    (clips / "a.mp4").unlink()
    (clips / "a.mp4").write_bytes(b"content of A")
    assert keys(clips)[0] != before[0]


def test_two_projects_add_to_one_index(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both were opened before either had hashed anything."""
    other = tmp_path_factory.mktemp("other")
    (other / "x.mp4").write_bytes(b"x")
    (other / "x.txt").write_text("x")
    first, second = (FileIndex(clips / "index.json") for _ in range(2))
    first.media_keys(found(clips))
    second.media_keys(found(other))
    assert remembered(clips) == 4
