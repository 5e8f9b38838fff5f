"""Clips, models, cache and results on a second disk: nothing is renamed from one to the other, no link is needed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.commands.workbench import LORA, Workbench


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the project's."""
    folder = Path(f"/dev/shm/hv15-disk-{os.getpid()}")
    folder.mkdir(mode=0o700)
    assert folder.stat().st_dev != tmp_path.stat().st_dev
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def spread(project: Workbench, other_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A fresh project of which all but config.yaml is on the other disk, by path or by link; no hard links are made."""
    shutil.move(project.clips, other_disk / "clips")
    project.clips.symlink_to(other_disk / "clips")
    (other_disk / "results").mkdir()
    (project.root / "results").symlink_to(other_disk / "results")
    models = {}
    for role, path in project.config["models"].items():
        if role == "dit":
            models[role] = str(shutil.copy(path, other_disk))
        elif role == "vae":
            (project.root / "vae.safetensors").symlink_to(shutil.copy(path, other_disk))
            models[role] = "vae.safetensors"
    project.set(models=models, cache={"directory": str(other_disk / "cache")})

    def refused(*words: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    return project


@pytest.mark.slow
def test_everything_works_there_as_here(spread: Workbench, finished: Workbench, other_disk: Path) -> None:
    spread.encode()
    spread.train()
    spread.sample()
    assert (other_disk / LORA).is_file()
    mine, theirs = load_file(spread.root / LORA), load_file(finished.root / LORA)
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    assert "up to date" in spread.does("why", "--target", LORA).out
    assert "0 items" in spread.does("gc").out
    # A training that goes on keeps the state that it starts from, by a copy where no link is possible.
    spread.set(train={"learning_rate": 0.001, "continue_from": "latest", "max_train_steps": 3})
    spread.train()
    assert (spread.paths.origin / "state.json").is_file()
    assert "up to date" in spread.does("why", "--target", LORA).out


def test_a_scratch_disk_changes_no_byte(done: Workbench, other_disk: Path) -> None:
    before = (done.root / LORA).read_bytes()
    shutil.rmtree(done.paths.training)
    (done.root / LORA).unlink()
    done.set(cache={"scratch": str(other_disk)})
    done.train()
    assert (done.root / LORA).read_bytes() == before
    copies = {path.name for path in other_disk.rglob("*.safetensors")}
    items = {path.name for path in (done.root / "cache/store").rglob("*.safetensors")}
    assert copies
    assert copies <= items
