from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.records.estimate import Advice, Basis, DeviceEstimate, ProjectEstimate, Seconds, StageEstimate
from hv15.records.fields import to_json
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState
from tui.data import trial
from tui.data.alerts import alerts
from tui.data.estimate import Estimation
from tui.data.history import RunRow
from tui.data.metrics import TrainingStatus
from tui.data.system import Gpu, SystemSample

GIB = 2**30


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("task: t2v\n")
    return path


def answer(monkeypatch: pytest.MonkeyPatch, output: str, errors: str = "", code: int = 0) -> None:
    """Let the command print these words and nothing else."""
    program = f"import sys; print({output!r}); print({errors!r}, file=sys.stderr); sys.exit({code})"
    run = trial.Trial.run

    def instead(self: trial.Trial, words: list[str], **more: object) -> trial.Completed:
        return run(self, [sys.executable, "-c", program, *words[3:]], **more)  # type: ignore[arg-type]

    monkeypatch.setattr(trial.Trial, "run", instead)


def test_stages_with_memory_and_time(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"weights": 16 * GIB, "latents": 5}
    train = StageEstimate("train", 26 * GIB, False, parts, count=9, unit="step", total_seconds=3600)
    train = replace(train, total=Seconds(1800, 5400, Basis.MEASURED), memory_basis=Basis.MEASURED)
    sample = StageEstimate("sample", 9 * GIB, True, {}, count=1, unit="sample")
    advice = (Advice("train: train.quantize: fp8, then 19 GiB"),)
    plan = ProjectEstimate(DeviceEstimate("RTX 4090", 24 * GIB), False, (train, sample), advice, "sizes of the files")
    answer(monkeypatch, json.dumps(to_json(plan)))
    found = Estimation(config).run()
    assert [(line.name, line.memory, line.seconds, line.note) for line in found.lines] == [
        ("train", 26 * GIB, 3600.0, "does not fit, 9 x step, 30:00 to 1:30:00 (measured here), weights 16.0 GiB"),
        ("sample", 9 * GIB, None, "1 x sample"),
    ]
    assert (found.peak, found.fits, found.device) == (26 * GIB, False, "RTX 4090, 24.0 GiB")
    assert found.notes == (
        "train: train.quantize: fp8, then 19 GiB",
        "sizes of the files",
        "memory allowances: partly measured here",
    )


@pytest.mark.parametrize(
    ("output", "errors", "expected"),
    [
        ("", "error: config.yaml:1:1 task: wrong", "task: wrong"),
        ("not json", "", "what `hv15 plan` printed is not JSON"),
        ('{"version": 99}', "", "what `hv15 plan` printed is of version 99"),
    ],
)
def test_without_an_estimate_it_is_said(
    config: Path, monkeypatch: pytest.MonkeyPatch, output: str, errors: str, expected: str
) -> None:
    answer(monkeypatch, output, errors, code=2)
    found = Estimation(config, "task: i2v\n").run()
    assert found.lines == ()
    assert expected in found.error


@pytest.mark.parametrize("output", ["[]", "3", '{"version": 1, "stages": {"a": 1}}', '{"version": 1, "stages": [3]}'])
def test_another_shape_of_answer_stops_nothing(config: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    answer(monkeypatch, output)
    assert "what `hv15 plan` printed" in Estimation(config).run().error


def run(state: RunState, reason: str = "") -> RunRow:
    folder = RunFolder(Path("p"), "one")
    return RunRow("one", state, reason, 1.0, None, None, 0, 1, 0, (), "", "", folder)


def training(loss: float | None, stalled: bool = False) -> TrainingStatus:
    return TrainingStatus(5, 10, 2.0, 10.0, 600.0 if stalled else 1.0, stalled, loss, loss)


def machine(disk_free: int = 100 << 30, gpu_used: int = 10, used: int = 10) -> SystemSample:
    return SystemSample(0, 0, 1, used, 100, 0, (), disk_free, 200 << 30, (Gpu(0, "x", gpu_used, 100),), "")


def test_alerts() -> None:
    assert alerts(run(RunState.RUNNING), training(0.5), machine()) == ()
    assert alerts(None, None, None) == ()
    assert [each.kind for each in alerts(run(RunState.DIED, "kill -9"), training(None), machine())] == ["died"]
    former = replace(training(None, stalled=True), former=True)
    assert alerts(run(RunState.RUNNING), former, machine()) == (), "these are an earlier training's numbers"
    wrong = alerts(run(RunState.RUNNING), training(float("nan"), stalled=True), machine(1 << 30, 99, 99))
    assert [each.kind for each in wrong] == ["nan", "stall", "disk", "memory", "memory"]
    assert "10 min" in wrong[1].text
    assert all(each.cure for each in wrong)
