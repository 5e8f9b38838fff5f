from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hv15.demo.clips import render_demo_clips
from hv15.demo.models import make_demo_models
from tests.workflow.project import ProjectFolder, copy_clips, small_config

CLIPS = 5
"""How many of the demo's clips a test project begins with."""


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's tiny models, made once: a folder in the layout of `models.directory`."""
    folder = tmp_path_factory.mktemp("models")
    make_demo_models(folder / "demo")
    return folder


@pytest.fixture(scope="session")
def demo_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media") / "clips"
    render_demo_clips(folder)
    return folder


def clip_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.mp4"))


def make_project(root: Path, demo_models: Path, demo_clips: Path) -> ProjectFolder:
    """A t2v project with a few clips, two training steps and one small sample; it runs in seconds."""
    root.mkdir(parents=True, exist_ok=True)
    copy_clips(demo_clips, root / "clips", clip_names(demo_clips)[:CLIPS])
    config = small_config({"source": "demo", "directory": str(demo_models)})
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    return ProjectFolder(root)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, demo_models: Path, demo_clips: Path) -> ProjectFolder:
    """One project for a whole module: its tests build on one another, in their order."""
    return make_project(tmp_path_factory.mktemp("project") / "project", demo_models, demo_clips)
