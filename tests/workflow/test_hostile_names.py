"""Names that mean something to a shell, to Snakemake, to Python's formats or to a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.test_hostile_text import is_clean
from tests.commands.workbench import Said
from tests.hostile.texts import HOSTILE
from tests.workflow.quick import QuickProject

NAME = "a{b} {{c}} $(touch ran) `touch ran` 'q' \"d\" ;touch ran; %s *é"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(NAME, id="all of them"),
        pytest.param("{input}", id="input", marks=pytest.mark.slow),
        pytest.param("{name}", id="wildcard", marks=pytest.mark.slow),
        pytest.param("-d", id="option", marks=pytest.mark.slow),
    ],
)
def test_names_are_names(name: str, tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / name)
    project.clips.rename(project.root / f"clips {name}")
    (project.root / f"clips {name}" / "cat.mp4").rename(project.root / f"clips {name}" / f"{name}.mp4")
    (project.root / f"clips {name}" / "cat.txt").rename(project.root / f"clips {name}" / f"{name}.txt")
    project.set(
        datasets=[{"video_directory": f"clips {name}", "resolution": [64, 64], "target_frames": [9]}],
        cache={"directory": f"cache {name}"},
    )
    outcome = project.snakemake("--cores", "1")
    assert outcome.code == 0, outcome.output
    assert outcome.clips == 5
    assert not list(tmp_path.rglob("ran"))


def test_braces_in_the_folder_of_models_are_refused(tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / "project")
    project.set(models={"source": "demo", "directory": "mo{del}s"})
    outcome = project.snakemake("-n")
    assert outcome.code != 0
    assert "mo{del}s: { } in a name is a placeholder of Snakemake" in outcome.output
    assert "Traceback" not in outcome.output


def test_what_the_workflow_says(tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / "project")
    project.set(train=dict.fromkeys(HOSTILE.values(), 1))
    outcome = project.snakemake("-n")
    assert "unknown key" in outcome.output
    is_clean(Said(outcome.code, outcome.output, ""))
