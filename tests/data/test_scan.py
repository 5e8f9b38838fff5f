"""Scans: what is found, in which order, with which caption, and how mistakes are reported."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.captions import caption_key
from hv15.errors import UserError
from tests.data.scanned import scan


def put(folder: Path, *names: str, caption: str | None = "a caption") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"media " + name.encode())
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def test_a_folder_of_videos(tmp_path: Path) -> None:
    put(tmp_path / "clips", "b.mp4", "a.MOV", "c d.webm")
    put(tmp_path / "clips", ".hidden.mp4", "notes.md", "poster.png", caption=None)
    put(tmp_path / "clips", "frames/1.png", "frames/2.png", caption=None)
    (tmp_path / "clips" / "frames.txt").write_text("  a walk\n")
    (tmp_path / "clips" / "empty folder").mkdir()
    found = scan(DatasetSettings(video_directory="clips"), tmp_path)
    assert [source.path.name for source in found] == ["a.MOV", "b.mp4", "c d.webm", "frames"]
    assert [source.kind for source in found] == ["video", "video", "video", "frames"]
    assert [source.caption for source in found] == ["a caption"] * 3 + ["a walk"]
    status = (tmp_path / "clips" / "b.mp4").stat()
    assert (found[1].size, found[1].mtime_ns, found[1].inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


def test_a_folder_of_images_takes_images_only(tmp_path: Path) -> None:
    put(tmp_path / "stills", "b.png", "a.JPG", "sub/x.png", "c.mp4")
    found = scan(DatasetSettings(image_directory="stills"), tmp_path)
    assert [(source.path.name, source.kind) for source in found] == [("a.JPG", "image"), ("b.png", "image")]


def test_prefix_suffix_and_ending(tmp_path: Path) -> None:
    put(tmp_path, "x.mp4", caption=None)
    (tmp_path / "x.caption").write_bytes("\ufeff ein Bär \r\n".encode())
    settings = DatasetSettings(
        video_directory=".", caption_extension=".caption", caption_prefix="sks, ", caption_suffix="."
    )
    assert scan(settings, tmp_path)[0].caption == "sks, ein Bär."


def test_caption_keys_name_the_text() -> None:
    assert caption_key("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert caption_key("a") != caption_key("a ")


def test_rows_of_a_jsonl_file(tmp_path: Path) -> None:
    """Paths are looked up in the file's folder first, then in the project."""
    put(tmp_path / "lists", "near.mp4", "both.mp4", "folder/1.png", caption=None)
    put(tmp_path, "far.mp4", "both.mp4", caption=None)
    rows = [
        {"video_path": "near.mp4", "caption": " one "},
        {"video_path": "far.mp4", "caption": "two"},
        {"video_path": "both.mp4", "caption": "three", "more": 1},
        {"video_path": str(tmp_path / "far.mp4"), "caption": "four"},
        {"video_path": "folder", "caption": "five"},
    ]
    (tmp_path / "lists" / "v.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = scan(DatasetSettings(video_jsonl_file="lists/v.jsonl"), tmp_path)
    assert [source.caption for source in found] == ["one", "two", "three", "four", "five"]
    assert [source.kind for source in found] == ["video"] * 4 + ["frames"]
    assert found[2].path.parent.name == "lists"
    assert found[1].path == tmp_path / "far.mp4"


def test_image_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.png", caption=None)
    (tmp_path / "i.jsonl").write_text('{"image_path": "a.png", "caption": "x"}')
    (found,) = scan(DatasetSettings(image_jsonl_file="i.jsonl", caption_prefix="< ", caption_suffix=" >"), tmp_path)
    assert (found.kind, found.caption) == ("image", "< x >")


def problems_of(tmp_path: Path, **settings: str) -> UserError:
    with pytest.raises(UserError) as caught:
        scan(DatasetSettings(**settings), tmp_path)
    return caught.value


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    put(tmp_path / "clips", *(f"{i:02}.mp4" for i in range(14)), caption=None)
    (tmp_path / "clips" / "00.txt").write_bytes(b"caf\xe9")
    (tmp_path / "clips" / "01.txt").write_text("utf-16", encoding="utf-16")
    error = problems_of(tmp_path, video_directory="clips")
    lines = error.message.splitlines()
    assert lines[0].endswith("00.txt: not UTF-8: byte 0xe9 at offset 3")
    assert lines[1].endswith("01.txt: not UTF-8 but UTF-16")
    assert lines[2].endswith("02.mp4: no caption, expected in 02.txt")
    assert lines[-1] == "clips: ... and 4 more"
    assert len(lines) == 11
    assert "caption_extension" in error.hint
    assert "UTF-8" in error.hint


def test_wrong_paths_suggest_near_ones(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "walks", "x.mp4")
    assert "did you mean" in problems_of(tmp_path, video_directory="vidoes").message
    nested = problems_of(tmp_path, video_directory="vidoes/walks").message
    assert nested.endswith(f"vidoes/walks: does not exist; did you mean {tmp_path}/videos?")
    assert "expected a folder, found a file" in problems_of(tmp_path, video_directory="videos/walks/x.mp4").message
    assert "expected a file, found a folder" in problems_of(tmp_path, video_jsonl_file="videos").message


def test_a_folder_that_may_not_be_read_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "videos", "x.mp4")

    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert "videos: cannot be read: Permission denied" in problems_of(tmp_path, video_directory="videos").message


def test_empty_folders_and_wrong_kinds(tmp_path: Path) -> None:
    put(tmp_path / "stills", "a.png", "b.png")
    (tmp_path / "nothing").mkdir()
    assert "no videos in this folder" in problems_of(tmp_path, video_directory="nothing").message
    assert "but 2 images: use image_directory for them" in problems_of(tmp_path, video_directory="stills").message


def test_bad_rows_are_named_by_line(tmp_path: Path) -> None:
    put(tmp_path, "clip_one.mp4", caption=None)
    rows = [
        b'{"video_path": "clip_one.mp4", "caption": "x"}',
        b'{"video_path": "clip_on.mp4", "caption": "x"}',
        b'{"video_path": "clip_one.mp4", "caption": 3}',
        b'{"image_path": "clip_one.mp4", "caption": "x"}',
        b'{"video_path": "clip_one.mp4", "caption": "caf\xe9"}',
        b"{video_path: 3}",
        b"[1]",
    ]
    (tmp_path / "v.jsonl").write_bytes(b"\n".join(rows))
    text = problems_of(tmp_path, video_jsonl_file="v.jsonl").message
    for expected in (
        f"v.jsonl:2: clip_on.mp4 does not exist; did you mean {tmp_path}/clip_one.mp4?",
        'v.jsonl:3: expected "caption" with a text for clip_one.mp4',
        'v.jsonl:4: expected "video_path" with a path, found image_path, caption',
        "v.jsonl:5: not UTF-8: byte 0xe9 at offset 46 of the line",
        "v.jsonl:6:2: not JSON",
        "v.jsonl:7: expected an object in braces, found list",
    ):
        assert expected in text


def test_an_edit_inside_a_folder_of_images_changes_its_stamp(tmp_path: Path) -> None:
    put(tmp_path / "clips", "walk/1.png", "walk/2.png", caption=None)
    (tmp_path / "clips" / "walk.txt").write_text("x")
    settings = DatasetSettings(video_directory="clips")
    before = scan(settings, tmp_path)
    assert scan(settings, tmp_path) == before
    (tmp_path / "clips" / "walk" / "1.png").rename(tmp_path / "clips" / "walk" / "3.png")
    assert scan(settings, tmp_path) != before


def test_planning_imports_nothing_heavy() -> None:
    """The modules that a workflow imports for planning load in well under a second."""
    code = (
        "import sys, hv15.data.scan, hv15.data.index, hv15.data.clips, hv15.data.musubi\n"
        "print([name for name in ('torch', 'av', 'numpy', 'PIL', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
