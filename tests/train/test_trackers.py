"""What other programs are told of a training, and that they cannot harm it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hv15.records.metrics import PreviewRecord, StartRecord, StepRecord, WarningRecord
from hv15.train.trackers import Trackers, flat, is_logged_in, measured
from tests.train.test_curves import step
from tests.train.world import metrics, run, settings


def start(spec: str = "s" * 64, at: int = 0) -> StartRecord:
    return StartRecord(step=at, total_steps=3, spec=spec)


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_tensorboard_gets_what_is_measured(tmp_path: Path) -> None:
    config = settings(max_train_steps=3, trackers=["tensorboard"])
    run(tmp_path, config)
    events = EventAccumulator(str(tmp_path / "train/tensorboard")).Reload()
    written = metrics(tmp_path)
    for name in ("loss", "lr", "grad_norm"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(record["step"], pytest.approx(record[name])) for record in written]
    bins = [each for each in events.Tags()["scalars"] if each.startswith("loss_by_sigma/")]
    seen = sum(len(events.Scalars(name)) for name in bins)
    assert seen == sum(each is not None for record in written for each in record["loss_by_sigma"])


def test_previews_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hv15.sample import contact_sheet

    frames = np.arange(9 * 4 * 6 * 3, dtype=np.uint8).reshape(9, 4, 6, 3)
    monkeypatch.setattr(contact_sheet, "read_sample", lambda _path: frames)
    trackers = Trackers(("tensorboard",), "hv15", tmp_path, {})
    trackers(start())
    trackers(PreviewRecord(step=2, name="red", path="previews/red.step000002.mp4"))
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Images("preview red")] == [2]


@pytest.mark.usefixtures("no_login")
def test_wandb_is_offline_without_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: what accelerate's tracker asks of it."""
    asked: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []
    seen = SimpleNamespace(
        log=lambda values, step: logged.append((values, step)), finish=lambda: logged.append(({}, -1))
    )

    def init(**options: Any) -> Any:
        asked.append(options)
        return seen

    config = SimpleNamespace(update=lambda values, allow_val_change: asked.append(values))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, config=config))
    trackers = Trackers(("wandb",), "my project", tmp_path, {"train.seed": 7})
    for record in (start("abcd" * 16), step(1)):
        trackers(record)
    trackers.close()
    assert asked == [
        {
            "project": "my project",
            "dir": str(tmp_path),
            "id": "abcd" * 4,
            "resume": "allow",
            "mode": "offline",
        },
        {"train.seed": 7},
    ]
    assert [at for _, at in logged] == [1, -1]
    assert logged[0][0]["loss"] == 1.0


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize("how", ["variable", "mode", "netrc"])
def test_a_login_is_found(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_logged_in()
    if how == "netrc":
        (tmp_path / "home").mkdir()
        (tmp_path / "home/.netrc").write_text("machine api.wandb.ai login user password x\n")
        (tmp_path / "home/.netrc").chmod(0o600)
    else:
        monkeypatch.setenv("WANDB_API_KEY" if how == "variable" else "WANDB_MODE", "x")
    assert is_logged_in()


@pytest.mark.parametrize("problem", ["missing", "start", "log"])
def test_a_tracker_that_fails_is_left_out(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from accelerate.tracking import TensorBoardTracker

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk of another program is full")

    if problem == "missing":
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
    else:
        monkeypatch.setattr(TensorBoardTracker, problem, fail)
    output = run(tmp_path, settings(max_train_steps=3, trackers=["tensorboard"]))
    assert output.exists()
    warnings = [record.getMessage() for record in caplog.records if "train.trackers" in record.getMessage()]
    assert len(warnings) == 1
    assert ("hv15[trackers]" in warnings[0]) == (problem == "missing")


def test_what_is_measured() -> None:
    record = step(2)
    found = dict(measured(record))
    assert found["loss"] == 0.5
    assert found.keys() >= {"lr", "grad_norm", "memory"}
    assert {name for name in found if "/" in name} == {
        f"loss_by_sigma/{place}" for place, each in enumerate(record.loss_by_sigma) if each is not None
    }
    assert dict(measured(WarningRecord(step=1, message="x"))) == {}
    assert isinstance(record, StepRecord)


def test_settings_by_their_paths() -> None:
    assert flat({"train": {"seed": 7, "layers": ["a"]}, "task": "t2v", "none": None}) == {
        "train.seed": 7,
        "train.layers": "['a']",
        "task": "t2v",
        "none": None,
    }
