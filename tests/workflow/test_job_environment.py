"""Which `hv15` the jobs of a workflow call."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from hv15.workflow.job_environment import find_command


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this interpreter's programs."""
    program(tmp_path / "own" / "hv15")
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "own" / "python")))
    return tmp_path / "own"


def found(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> Path:
    """The `hv15` that jobs find, of a snakemake that finds those of some folders."""
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
    find_command()
    return Path(shutil.which("hv15") or "")


def test_none_is_found(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, tmp_path / "empty") == own / "hv15"


@pytest.mark.parametrize("linked", [False, True])
def test_that_of_another_environment(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
    program(tmp_path / "other" / "python")
    other = program(tmp_path / "other" / "hv15")
    if linked:  # as tools that install programs for a user do
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "hv15").symlink_to(other)
    folder = tmp_path / "links" if linked else tmp_path / "other"
    assert found(monkeypatch, folder) == own / "hv15"


def test_that_of_this_environment_and_one_that_somebody_put_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(monkeypatch, own) == own / "hv15"
    first = program(tmp_path / "wrapper" / "hv15")
    assert found(monkeypatch, tmp_path / "wrapper", own) == first
