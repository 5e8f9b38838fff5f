"""A store knows the projects that use it, wherever both are moved, and whatever became of a note."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.cache.register import register, registered


def note_of(store: Path) -> Path:
    (note,) = (store / "projects").iterdir()
    return note


def test_a_store_in_the_project_moves_with_it(tmp_path: Path) -> None:
    root = tmp_path / "before"
    register(root / "cache", root)
    assert json.loads(note_of(root / "cache").read_text())["root"] == ".."
    root.rename(tmp_path / "after")
    (project,) = registered(tmp_path / "after" / "cache")
    assert (project.root, project.is_reachable) == (tmp_path / "after", True)


def test_a_project_with_its_store_elsewhere_has_an_absolute_path(tmp_path: Path) -> None:
    register(tmp_path / "store", tmp_path / "project")
    (project,) = registered(tmp_path / "store")
    assert (project.root, project.is_reachable) == (tmp_path / "project", False)


@pytest.mark.parametrize("content", ["", '{"version": 1, "ro', '{"version": 1}', "[]", '{"root": "x"}'])
def test_a_damaged_note_is_written_again(tmp_path: Path, content: str) -> None:
    register(tmp_path / "store", tmp_path)
    note = note_of(tmp_path / "store")
    sound = note.read_text()
    note.write_text(content)
    assert [(project.root, project.is_reachable) for project in registered(tmp_path / "store")] == [(note, False)]
    register(tmp_path / "store", tmp_path)
    assert note.read_text() == sound


def test_a_note_of_another_version_is_left_to_that(tmp_path: Path) -> None:
    register(tmp_path / "store", tmp_path)
    note = note_of(tmp_path / "store")
    note.write_text('{"version": 2, "place": "here"}')
    before = note.read_text()
    register(tmp_path / "store", tmp_path)
    assert note.read_text() == before
    assert [project.root for project in registered(tmp_path / "store")] == [note]


def test_a_store_that_may_only_be_read_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "projects").touch()  # no folder can be made there
    register(tmp_path, tmp_path / "project")
    assert list(registered(tmp_path)) == []
