"""A project whose media are a few bytes each, and whose models are the demo's: nothing here opens either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hv15.project import Project
from tests.workflow.project import merge

CONFIG: dict[str, object] = {
    "models": {"source": "demo"},
    "datasets": [{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}],
    "sample": {"prompts": [{"name": "one", "prompt": "a red circle"}]},
}

MakeProject = Callable[..., Project]
"""Opens the project with settings over those of CONFIG; a list replaces a list."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project's folder, with two clips."""
    folder = tmp_path / "project"
    for name in ("cat", "dog"):
        add_clip(folder, name)
    return folder


@pytest.fixture
def open_project(root: Path) -> MakeProject:
    def opened(**sections: object) -> Project:
        path = root / "config.yaml"
        path.write_text(yaml.safe_dump(merge(CONFIG, sections), sort_keys=False))
        return Project(path)

    return opened


def add_clip(root: Path, name: str, caption: str | None = None, folder: str = "clips") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / f"{name}.mp4").write_bytes(f"the video {name}".encode())
    (root / folder / f"{name}.txt").write_text(caption or f"a {name} that runs")


def moved(project: Project, target: Path) -> Project:
    """The same project in another place."""
    shutil.move(project.root, target)
    return Project(target / "config.yaml")
