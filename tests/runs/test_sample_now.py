"""A running training is asked for samples by a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hv15 import cli
from hv15.errors import USER_ERROR
from hv15.records.metrics import EndRecord, MetricsRecord
from hv15.records.paths import ProjectPaths
from hv15.runs import control
from hv15.runs.state import RunState
from hv15.train.state import locked
from tests.records.steps import lines, start_record, step_record

NO_TRAINING = "no training is in its steps now"


@pytest.fixture
def project(tmp_path: Path) -> ProjectPaths:
    """One whose training is in its steps."""
    paths = ProjectPaths(tmp_path)
    paths.config.write_text("task: t2v\n")
    tell(paths, start_record(5), step_record(1))
    return paths


@pytest.fixture
def training(project: ProjectPaths) -> Iterator[None]:
    """Holds the training's lock."""
    with locked(project.training):
        yield


def tell(project: ProjectPaths, *records: MetricsRecord) -> None:
    project.metrics.parent.mkdir(parents=True, exist_ok=True)
    project.metrics.write_text(lines(*records))


def runs(monkeypatch: pytest.MonkeyPatch, state: RunState, started: float = 0.0) -> None:
    found = SimpleNamespace(state=state, record=SimpleNamespace(started=started))
    monkeypatch.setattr(control, "current", lambda root: found)


def refusal(project: ProjectPaths, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["sample-now", str(project.root)]) == USER_ERROR
    assert not project.sample_now.exists(), "no later training finds it"
    return capsys.readouterr().err


@pytest.mark.usefixtures("training")
def test_it_leaves_the_file_that_the_training_looks_for(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, RunState.RUNNING)
    assert cli.main(["sample-now", str(project.root)]) == 0
    assert project.sample_now.exists()
    assert "results/train/previews" in capsys.readouterr().out


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize(("state", "in_its_steps"), [(None, True), (RunState.STOPPED, True), (RunState.RUNNING, False)])
def test_without_a_run_or_before_its_steps_it_refuses(
    state: RunState | None,
    in_its_steps: bool,
    project: ProjectPaths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if state is not None:
        runs(monkeypatch, state)
    if not in_its_steps:
        project.metrics.unlink()
    assert NO_TRAINING in refusal(project, capsys)


def test_when_the_training_has_ended_or_was_killed_it_refuses(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on with other jobs; the lock file is still there, but nobody holds it."""
    runs(monkeypatch, RunState.RUNNING)
    project.training_lock.touch()
    assert NO_TRAINING in refusal(project, capsys)


@pytest.mark.usefixtures("training")
def test_the_metrics_of_an_earlier_training_do_not_count(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, RunState.RUNNING, started=project.metrics.stat().st_mtime + 60)
    assert NO_TRAINING in refusal(project, capsys)


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("early", [False, True])
def test_after_the_last_step_it_refuses(
    early: bool, project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(monkeypatch, RunState.RUNNING)
    if early:
        end = EndRecord(step=2, total_steps=2, reason="the validation loss does not fall")
        tell(project, start_record(5), step_record(1), step_record(2), end)
    else:
        tell(project, start_record(2), step_record(1), step_record(2))
    assert "has done its last step" in refusal(project, capsys)


@pytest.mark.usefixtures("training")
def test_a_training_without_prompts_refuses(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the config says now does not matter: the training was started with another one."""
    runs(monkeypatch, RunState.RUNNING)
    tell(project, start_record(5), step_record(1), replace(start_record(5, 1), samples_on_request=False))
    words = refusal(project, capsys)
    assert "without prompts" in words
    assert "sample.prompts" in words
    tell(project, replace(start_record(5), samples_on_request=False), replace(start_record(5), samples_on_request=True))
    assert cli.main(["sample-now", str(project.root)]) == 0


def test_a_look_at_the_lock_is_no_second_training(project: ProjectPaths) -> None:
    """A training that starts while somebody looks waits for a moment."""
    with locked(project.training):
        pass
    descriptor = os.open(project.training_lock, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looks = iter([None, None])

    def look_away(_: float) -> None:
        if next(looks, descriptor) is descriptor:
            os.close(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.train.state.time.sleep", look_away)
        with locked(project.training):
            assert control.lock.is_held(project.training_lock)
    assert not control.lock.is_held(project.training_lock)
