"""Files and folders are complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.atomic import atomic_folder, atomic_path, remove_torn, write_json
from hv15.errors import UserError


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"b": 1, "a": 2})
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 // 0))
    assert target.read_text() == '{\n "a": 2,\n "b": 1\n}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as temporary:
        (temporary / "first").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as temporary:
        (temporary / "second").write_text(str(1 // 0))
    assert [file.name for file in target.iterdir()] == ["first"]
    with atomic_folder(target) as temporary:
        (temporary / "third").write_text("3")
    assert [file.name for file in target.iterdir()] == ["third"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), atomic_folder(tmp_path / "file" / "out"):
        pass


def test_what_killed_processes_have_left_is_removed(tmp_path: Path) -> None:
    """That of the target alone, file or folder."""
    (tmp_path / ".a[1].abcdefgh.tmp.mp4").touch()
    (tmp_path / ".a[1].mp4.abcdefgh.tmp").mkdir()
    (tmp_path / ".a[1].mp4.abcdefgh.tmp" / "one.png").touch()
    kept = {".a1.abcdefgh.tmp.mp4", ".a[1].b.abcdefgh.tmp.mp4", ".a[1].abcdefgh.tmp.png", "a[1].mp4"}
    for name in kept:
        (tmp_path / name).touch()
    remove_torn(tmp_path / "a[1].mp4")
    assert {file.name for file in tmp_path.iterdir()} == kept
