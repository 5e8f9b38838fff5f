"""Folders as people and machines leave them: sub-folders, odd names, other programs' folders, captions nearly right."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.scan import survey
from hv15.errors import UserError
from tests.data.scanned import scan
from tests.data.test_scan import put


def look(root: Path, **settings: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"video_directory": ".", **settings})


def names(root: Path, **settings: object) -> list[str]:
    return [os.path.relpath(source.place, root) for source in scan(look(root, **settings), root)]


# -- sub-folders --


def test_recursive_takes_everything_below(tmp_path: Path) -> None:
    put(tmp_path, "b.mp4", "sub/a.mp4", "sub/deep/er/c.MOV", "sub/walk/1.png", "sub/walk/2.png")
    (tmp_path / "sub" / "walk.txt").write_text("a walk")
    for picture in (tmp_path / "sub" / "walk").glob("*.txt"):
        picture.unlink()
    assert names(tmp_path, recursive=True) == ["b.mp4", "sub/a.mp4", "sub/walk", "sub/deep/er/c.MOV"]
    put(tmp_path / "stills", "a.png", "x/b.jpg")
    assert names(tmp_path / "stills", video_directory=None, image_directory=".", recursive=True) == ["a.png", "x/b.jpg"]


def test_without_recursive_they_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "b.mp4", "sub/a.mp4", "sub/deep/c.mov", "other/d.mkv", "@eaDir/e.mp4")
    put(tmp_path, "sub/no_caption.mp4", caption=None)
    found = survey(look(tmp_path), tmp_path)
    assert [source.path.name for source in found.sources] == ["b.mp4"]
    assert f"{tmp_path}: not used: 3 captioned videos in sub-folders: use recursive: true for them" in found.notes
    (tmp_path / "b.mp4").unlink()
    with pytest.raises(
        UserError, match=r"no videos in this folder, but 3 captioned videos in sub-folders: use recursive"
    ):
        scan(look(tmp_path), tmp_path)


def test_links_to_folders_above_end_nowhere(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "sub/b.mp4")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "self").symlink_to("self")
    (tmp_path / "sub" / "self.mp4").symlink_to("self.mp4")
    put(tmp_path, "sub/self.mp4.mp4")
    found = survey(look(tmp_path, recursive=True), tmp_path)
    assert [os.path.relpath(source.place, tmp_path) for source in found.sources] == [
        "a.mp4",
        "sub/b.mp4",
        "sub/self.mp4.mp4",
    ]
    assert any("self.mp4: " in str(problem) for problem in found.problems)


def test_pictures_without_a_caption_of_their_own(tmp_path: Path) -> None:
    """A folder of images is a clip whose caption was forgotten, unless it holds clips itself."""
    put(tmp_path, "a.mp4", "clips/poster.png", "clips/b.mp4", "stills/c.png")
    put(tmp_path, "walk/1.png", "walk/2.png", "walk/notes.md", caption=None)
    found = survey(look(tmp_path), tmp_path)
    assert [str(problem) for problem in found.problems] == [f"{tmp_path}/walk: no caption, expected in walk.txt"]
    assert f"{tmp_path}: not used: 2 images: use image_directory for them" in found.notes
    assert f"{tmp_path}: not used: 1 captioned video in sub-folders: use recursive: true for them" in found.notes
    assert [str(p) for p in survey(look(tmp_path, recursive=True), tmp_path).problems] == [str(found.problems[0])]


def test_folders_of_systems_and_viewers_are_ignored_and_said_once(tmp_path: Path) -> None:
    for folder in ("@eaDir/a.mp4.d", ".thumbnails", "thumbs", "__MACOSX", "$RECYCLE.BIN", "sub/@eaDir"):
        put(tmp_path, f"{folder}/SYNOFILE_THUMB_M.jpg", caption=None)
    put(tmp_path, "a.mp4", "sub/b.mp4")
    put(tmp_path, "__MACOSX/._a.mp4", "._a.mp4", caption=None)
    for recursive in (False, True):
        found = survey(look(tmp_path, recursive=recursive), tmp_path)
        assert found.problems == []
        (note,) = [note for note in found.notes if "ignored" in note]
        assert note.startswith(f"{tmp_path}: ignored: $RECYCLE.BIN, .thumbnails, @eaDir, __MACOSX, thumbs (")
    (tmp_path / "thumbs.txt").write_text("thumbs of hands")  # a caption of its own: meant
    assert names(tmp_path) == ["a.mp4", "thumbs"]


def test_a_nas(tmp_path: Path) -> None:
    """@eaDir holds a folder for each clip, all of which are ignored."""
    put(tmp_path, "x.mp4")
    put(tmp_path, "@eaDir/x.mp4.jpg/SYNOFILE_THUMB_M.jpg", caption=None)
    assert names(tmp_path) == ["x.mp4"]


# -- endings --


def test_captioned_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.jxl", "c.exr", "d.png")
    put(tmp_path, "a.json", "e.psd", "notes.md", caption=None)
    found = survey(look(tmp_path), tmp_path)
    assert f"{tmp_path}: not used: 2 captioned files with an unsupported ending: b.jxl, c.exr" in found.notes
    assert f"{tmp_path}: not used: 1 image: use image_directory for them" in found.notes
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(UserError, match=r"no videos in this folder, but .*b\.jxl, c\.exr"):
        scan(look(tmp_path), tmp_path)


# -- captions --


def test_the_case_of_an_ending_and_the_form_of_accents_do_not_matter(tmp_path: Path) -> None:
    for name in ("café", "größe", "が"):
        for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
            folder = tmp_path / f"{form} {name!a}"
            folder.mkdir()
            (folder / unicodedata.normalize(form, f"{name}.mp4")).write_bytes(b"x")
            (folder / unicodedata.normalize(other, f"{name}.TXT")).write_text(name)
            (source,) = scan(look(folder), folder)
            assert (source.caption, Path(source.caption_file).exists()) == (name, True)
    put(tmp_path / "upper", "A.MP4", caption=None)
    (tmp_path / "upper" / "A.TXT").write_text("upper")
    (source,) = scan(look(tmp_path), tmp_path / "upper")
    assert (source.caption, Path(source.caption_file).name) == ("upper", "A.TXT")
    (tmp_path / "upper" / "A.txt").write_text("exact")
    assert scan(look(tmp_path), tmp_path / "upper")[0].caption == "exact"


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("b.mp4.txt", True),
        ("b.txt.txt", True),
        ("b.caption", True),
        ("B.txt", True),
        ("other clip.txt", False),
    ],
)
def test_near_misses_are_named(tmp_path: Path, caption: str, named: bool) -> None:
    put(tmp_path, "b.mp4", caption=None)
    (tmp_path / caption).write_text("x")
    with pytest.raises(UserError) as caught:
        scan(look(tmp_path), tmp_path)
    assert (f"b.mp4: no caption, expected in b.txt; there is {caption}" in caught.value.message) == named
    assert ("rename the captions" in caught.value.hint) == named
    assert ("default_caption" in caught.value.hint) != named


def test_a_near_name_is_no_others_caption(tmp_path: Path) -> None:
    put(tmp_path, "clip_01.mp4")
    put(tmp_path, "clip_02.mp4", "clip_3.mp4", caption=None)
    (tmp_path / "clip_03.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        scan(look(tmp_path), tmp_path)
    assert "clip_02.mp4: no caption, expected in clip_02.txt; there is clip_03.txt" in caught.value.message
    assert "clip_01.txt" not in caught.value.message


def test_a_default_caption_takes_the_place_of_none(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    put(tmp_path, "c.mp4", "walk/1.png", caption=None)
    (tmp_path / "b.txt").write_text(" \r\n")
    found = survey(look(tmp_path, default_caption="a clip\r\n", caption_prefix="sks, "), tmp_path)
    assert found.problems == []
    assert [source.caption for source in found.sources] == ["sks, a caption", "sks, ", "sks, a clip", "sks, a clip"]
    assert [source.is_default for source in found.sources] == [False, False, True, True]
    assert f"{tmp_path}: 2 files without a caption: default_caption is used" in found.notes
    assert found.empty == [f"{tmp_path}/b.mp4"]
    assert survey(look(tmp_path, default_caption=""), tmp_path).sources[2].caption == ""


def test_empty_captions_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbf  \r\n\t ")
    found = survey(look(tmp_path, caption_prefix="sks"), tmp_path)
    assert found.empty == [f"{tmp_path}/a.mp4", f"{tmp_path}/c.mp4"]
    assert len(found.sources) == 3


def test_bad_captions_say_whose_they_are(tmp_path: Path) -> None:
    """So that a display of the dataset does not have to parse sentences."""
    put(tmp_path, "a.mp4", "b.mp4", caption=None)
    (tmp_path / "b.TXT").write_bytes(b"caf\xe9")
    missing, bad = survey(look(tmp_path), tmp_path).problems
    assert (missing.media, missing.caption_file, missing.reason) == (
        f"{tmp_path}/a.mp4",
        f"{tmp_path}/a.txt",
        "",
    )
    assert (bad.media, bad.caption_file) == (f"{tmp_path}/b.mp4", f"{tmp_path}/b.TXT")
    assert bad.reason == "not UTF-8: byte 0xe9 at offset 3"


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "c.mp4")
    (tmp_path / "c.txt").write_text("x")
    messages = [str(problem) for problem in survey(look(tmp_path), tmp_path).problems]
    assert messages == [
        f"{tmp_path}/b.txt: more than 64 KiB, expected a caption",
        f"{tmp_path}/c.mp4: cannot be read: not a regular file",
    ]
