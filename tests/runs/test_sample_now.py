"""A running training is asked for samples by a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hv15 import cli
from hv15.errors import USER_ERROR
from hv15.records.paths import ProjectPaths
from hv15.runs import control
from hv15.runs.state import RunState


@pytest.fixture
def project(tmp_path: Path) -> ProjectPaths:
    paths = ProjectPaths(tmp_path)
    paths.config.write_text("task: t2v\n")
    return paths


def runs(monkeypatch: pytest.MonkeyPatch, state: RunState, started: float = 0.0) -> None:
    found = SimpleNamespace(state=state, record=SimpleNamespace(started=started))
    monkeypatch.setattr(control, "current", lambda root: found)


def test_it_leaves_the_file_that_the_training_looks_for(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, RunState.RUNNING)
    project.metrics.parent.mkdir(parents=True)
    project.metrics.touch()
    assert cli.main(["sample-now", str(project.root)]) == 0
    assert project.sample_now.exists()
    assert "results/train/previews" in capsys.readouterr().out


@pytest.mark.parametrize(("state", "in_its_steps"), [(None, True), (RunState.STOPPED, True), (RunState.RUNNING, False)])
def test_without_a_training_it_refuses(
    state: RunState | None,
    in_its_steps: bool,
    project: ProjectPaths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if state is not None:
        runs(monkeypatch, state)
    if in_its_steps:
        project.metrics.parent.mkdir(parents=True)
        project.metrics.touch()
    assert cli.main(["sample-now", str(project.root)]) == USER_ERROR
    assert "no training is in its steps now" in capsys.readouterr().err
    assert not project.sample_now.exists()


def test_the_metrics_of_an_earlier_training_do_not_count(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.metrics.parent.mkdir(parents=True)
    project.metrics.touch()
    runs(monkeypatch, RunState.RUNNING, started=project.metrics.stat().st_mtime + 60)
    assert cli.main(["sample-now", str(project.root)]) == USER_ERROR
    assert "no training is in its steps now" in capsys.readouterr().err
    assert not project.sample_now.exists()
