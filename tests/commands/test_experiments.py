"""The commands on a project with experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15 import cli
from tests.workflow.quick import QuickProject
from tests.workflow.test_experiments import with_experiments

Said = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    project = QuickProject.make(tmp_path / "project")
    project.set(experiments={"small": {"train.network_dim": 2}, "large": {"train.network_dim": 8}})
    return project


def test_targets_stand_behind_the_project(project: QuickProject, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["why", str(project.root), "experiments"]) == 0
    behind = capsys.readouterr().out
    assert cli.main(["why", str(project.root), "--target", "experiments"]) == 0
    assert capsys.readouterr().out == behind
    assert cli.main(["run", str(project.root), "experiments", "--dry-run"]) == 0
    assert capsys.readouterr().out == behind
    monkeypatch.chdir(project.root)
    assert cli.main(["why", "experiments"]) == 0
    assert capsys.readouterr().out == behind
    assert "small: train the LoRA: not made yet" in behind.splitlines()
    assert cli.main(["why", "--experiment", "small"]) == 0
    own = capsys.readouterr().out
    assert "small: publish the LoRA" in own
    assert "large" not in own


def test_status_counts_experiments_and_names_what_is_left_of_others(project: QuickProject, capsys: Said) -> None:
    lora = project.root / "results/small/lora.safetensors"
    lora.parent.mkdir(parents=True)
    lora.touch()
    (project.root / "results/former/specs").mkdir(parents=True)
    assert cli.main(["status", str(project.root)]) == 0
    said = capsys.readouterr().out
    assert "experiments: 1 of 2 are made" in said
    assert "of no experiment in the config: results/former; delete them if you wish" in said


def test_a_wrong_value_is_found_by_check(project: QuickProject, capsys: Said) -> None:
    with_experiments(project, {"wrong": {"train.network_dim": "many"}, "good": {}})
    assert cli.main(["check", str(project.root)]) == 2
    assert "experiments.wrong.train.network_dim: found 'many'" in capsys.readouterr().out
