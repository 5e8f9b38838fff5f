from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.runs.record import RunFolder
from hv15.runs.state import State
from tui.data import trial
from tui.data.alerts import alerts
from tui.data.curves import Progress
from tui.data.estimate import Estimate, Estimation
from tui.data.history import RunRow
from tui.data.system import Gpu, SystemSample


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
    train = {
        "name": "train",
        "needed": 26 << 30,
        "fits": False,
        "parts": {"weights": 16 << 30, "latents": 5},
        "count": 9,
    }
    stages = [{**train, "unit": "step", "total_seconds": 3600}, {"name": "sample"}, 3]
    device = {"name": "RTX 4090", "memory": 24 << 30}
    advice = [{"stage": "train", "text": "train: train.quantize: fp8, then 19 GiB"}]
    plan = {"device": device, "fits": False, "stages": stages, "advice": advice, "note": "sizes of the files"}
    answer(monkeypatch, json.dumps(plan))
    found = Estimation(config).run()
    assert [(line.name, line.memory, line.seconds, line.note) for line in found.lines] == [
        ("train", 26 << 30, 3600.0, "does not fit, 9 x step, weights 16.0 GiB"),
        ("sample", None, None, ""),
    ]
    assert (found.peak, found.fits, found.device) == (26 << 30, False, "RTX 4090, 24.0 GiB")
    assert found.notes == ("train: train.quantize: fp8, then 19 GiB", "sizes of the files")


def test_the_plan_of_hv15_has_the_names_that_are_read_here() -> None:
    from dataclasses import fields

    from hv15.plan.devices import Device
    from hv15.plan.stages import Stage

    assert {"name", "needed", "fits", "parts", "count", "unit"} <= {each.name for each in fields(Stage)}
    assert {"name", "memory"} <= {each.name for each in fields(Device)}
    assert isinstance(Stage.total_seconds, property)


@pytest.mark.parametrize(
    ("output", "errors", "expected"),
    [
        ("", "error: config.yaml:1:1 task: wrong", "task: wrong"),
        ("not json", "", "what `hv15 plan` printed is not JSON"),
    ],
)
def test_without_an_estimate_it_is_said(
    config: Path, monkeypatch: pytest.MonkeyPatch, output: str, errors: str, expected: str
) -> None:
    answer(monkeypatch, output, errors, code=2)
    found = Estimation(config, "task: i2v\n").run()
    assert found.lines == ()
    assert expected in found.error


@pytest.mark.parametrize(
    "output",
    ["[]", "3", '{"stages": {"a": 1}}', '{"stages": [{"needed": "much", "parts": [1]}], "advice": [1], "note": 3}'],
)
def test_another_shape_of_answer_stops_nothing(config: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    answer(monkeypatch, output)
    assert isinstance(Estimation(config).run(), Estimate)


def run(state: State, reason: str = "") -> RunRow:
    folder = RunFolder(Path("p"), "one")
    return RunRow("one", state, reason, 1.0, None, None, 0, 1, 0, (), "", "", folder)


def progress(loss: float | None, stalled: bool = False) -> Progress:
    return Progress(5, 10, 0.5, 2.0, 10.0, 600.0 if stalled else 1.0, stalled, loss, loss, 1e-4)


def machine(disk_free: int = 100 << 30, gpu_used: int = 10, used: int = 10) -> SystemSample:
    return SystemSample(0, 0, 1, used, 100, 0, (), disk_free, 200 << 30, (Gpu(0, "x", gpu_used, 100),), "")


def test_alerts() -> None:
    assert alerts(run(State.RUNNING), progress(0.5), machine()) == ()
    assert alerts(None, None, None) == ()
    assert [each.kind for each in alerts(run(State.DIED, "kill -9"), progress(None), machine())] == ["died"]
    former = replace(progress(None, stalled=True), former=True)
    assert alerts(run(State.RUNNING), former, machine()) == (), "these are an earlier training's numbers"
    wrong = alerts(run(State.RUNNING), progress(float("nan"), stalled=True), machine(1 << 30, 99, 99))
    assert [each.kind for each in wrong] == ["nan", "stall", "disk", "memory", "memory"]
    assert "10 min" in wrong[1].text
    assert all(each.cure for each in wrong)
