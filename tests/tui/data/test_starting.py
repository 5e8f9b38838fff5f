"""Start in the dashboard refuses what `hv15 run` refuses, before there is a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.runs import lock
from hv15.runs.processes import kill
from hv15.runs.record import history
from tests.commands.workbench import hv15
from tests.workflow.quick import QuickProject
from tui.data.starting import start_run


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"train": {"network_dim": "four", "learning_rate": 0}}, id="config"),
        pytest.param({"datasets": [{"video_directory": "nowhere"}]}, id="dataset", marks=pytest.mark.slow),
        pytest.param({"train": {"optimizer_args": ["warmth=3"]}}, id="optimizer", marks=pytest.mark.slow),
    ],
)
def test_what_is_broken_is_refused_at_once(broken: dict[str, object], tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / "project")
    project.set(**broken)
    config = project.root / "config.yaml"
    with pytest.raises(UserError, match=r"config\.yaml:\d+|nowhere|warmth") as caught:
        start_run(config, [])
    assert caught.value.hint
    assert hv15("run", config).err.startswith(f"error: {caught.value.message}\n")
    assert not history(project.root)


def test_what_is_sound_is_started(tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / "project")
    said = start_run(project.root / "config.yaml", ["demo_models"])
    [run] = history(project.root)
    try:
        assert said == f"started {run.id}: it continues when this terminal is closed"
        assert lock.holder(project.root)
        record = run.record()
        assert record is not None
        assert "demo_models" in record.command
    finally:
        if record := run.record():
            kill(record)


def test_a_start_that_says_nothing_is_a_refusal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UserError, match="ended with exit code 1"):
        start_run(tmp_path / "config.yaml", [])
