from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hv15.demo.clips import render_demo_clips
from hv15.demo.models import make_demo_models
from tests.workflow.finished import PlannedProject, finish
from tests.workflow.project import QUICK_PROGRAMS, Outcome, ProjectFolder, copy_clips, small_config, tiny_models
from tests.workflow.quick import CLIPS as QUICK_CLIPS
from tests.workflow.quick import TEXTS, QuickProject
from tests.zygote import ENCODERS, zygote

CLIPS = 5
"""How many of the demo's clips a test project begins with."""


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`snakemake` and `hv15` start at once in these tests: they are forks of a process that has imported them."""
    with zygote(tmp_path_factory.mktemp("zygote"), ENCODERS) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(QUICK_PROGRAMS, str(folder))
        yield


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
    (root / "config.yaml").write_text(yaml.safe_dump(small_config(tiny_models(demo_models))))
    return ProjectFolder(root)


@dataclass(frozen=True)
class Made:
    """A project on which everything was made once."""

    project: ProjectFolder
    outcome: Outcome

    def copy(self, root: Path) -> ProjectFolder:
        """A copy of its own for each test."""
        subprocess.run(["cp", "-a", self.project.root, root], check=True)
        return ProjectFolder(root)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, demo_models: Path, demo_clips: Path) -> Made:
    project = make_project(tmp_path_factory.mktemp("made") / "project", demo_models, demo_clips)
    return Made(project, project.snakemake())


@pytest.fixture
def project(made: Made, tmp_path: Path) -> ProjectFolder:
    """A project on which everything is made, for one test alone."""
    assert made.outcome.code == 0, made.outcome.output
    return made.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    project = QuickProject.make(tmp_path_factory.mktemp("why") / "project")
    finish(project)
    return project


@pytest.fixture(scope="session")
def made_by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> PlannedProject:
    """A project of stand-ins of which Snakemake made everything, for copies of it."""
    project = PlannedProject.make(tmp_path_factory.mktemp("prepared") / "project")
    outcome = project.snakemake()
    assert outcome.code == 0, outcome.output
    assert (outcome.clips, outcome.texts) == (len(QUICK_CLIPS), TEXTS)
    return project
