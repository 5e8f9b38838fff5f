"""Where the workflow's files are found: in a clone, in an installed wheel, and nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15 import home
from hv15.errors import UserError
from hv15.home import clone, workflow_folder

REPOSITORY = Path(__file__).parents[1]


def test_a_clone_is_found() -> None:
    assert clone() == REPOSITORY
    assert workflow_folder() == REPOSITORY


def test_an_installed_wheel_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_PACKAGE", tmp_path / "hv15")
    files = tmp_path / "hv15" / "workflow" / "files"
    files.mkdir(parents=True)
    (files / "Snakefile").touch()
    assert (workflow_folder(), clone()) == (files, None)


def test_an_installation_without_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_PACKAGE", tmp_path / "hv15")
    with pytest.raises(UserError, match="the Snakefile is missing"):
        workflow_folder()
    assert clone() is None
