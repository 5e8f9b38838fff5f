"""On a GPU a step's numbers are read when the next step is queued. Here the same on a CPU: nothing else may change."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hv15.train.examples import Example
from hv15.train.loop import Trainer
from hv15.train.signals import EXIT_RESUMABLE
from tests.train.test_resume import OPTIONS, at_step, send
from tests.train.world import metrics, run, settings, spoil, untimed


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that reads each step at once."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.train.metadata.git_commit", lambda: None)
        run(folder, settings("i2v", **OPTIONS))
    return folder


@pytest.fixture
def behind(straight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on each step is read a step later."""
    monkeypatch.setattr(Trainer, "read_behind", 1)


def test_the_numbers_of_a_step_are_read_while_the_next_one_runs(tmp_path: Path, monkeypatch: Any) -> None:
    events: list[str] = []
    monkeypatch.setattr(Trainer, "read_behind", 1)
    queue, read = Trainer._queue, Trainer._read_back

    def note_queued(self: Trainer, step: int, *rest: Any) -> Any:
        events.append(f"queue {step}")
        return queue(self, step, *rest)

    def note_read(self: Trainer, queued: Any) -> Any:
        events.append(f"read {queued.step}")
        return read(self, queued)

    monkeypatch.setattr(Trainer, "_queue", note_queued)
    monkeypatch.setattr(Trainer, "_read_back", note_read)
    run(tmp_path, settings(max_train_steps=4, state_every_n_steps=2))
    steps = [["queue 0"], ["queue 1", "read 0", "read 1"], ["queue 2"], ["queue 3", "read 2", "read 3"]]
    assert events == [event for step in steps for event in step]


@pytest.mark.usefixtures("behind")
def test_it_changes_no_number_and_no_line(tmp_path: Path, straight: Path) -> None:
    run(tmp_path / "behind", settings("i2v", **OPTIONS))
    for kind in ("step", "checkpoint"):
        assert untimed(metrics(tmp_path / "behind", kind)) == untimed(metrics(straight, kind))
    for name in ("lora.safetensors", "train/checkpoints/lora-step000003.safetensors"):
        assert (tmp_path / "behind" / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.usefixtures("behind")
def test_a_stop_is_noticed_a_step_later_and_loses_nothing(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("i2v", **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(5, send(signal.SIGTERM)))
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "stopped", config)
    assert stopped.value.code == EXIT_RESUMABLE
    assert len(metrics(tmp_path / "stopped")) == 6
    run(tmp_path / "stopped", config)
    assert untimed(metrics(tmp_path / "stopped")) == untimed(metrics(straight))
    assert (tmp_path / "stopped/lora.safetensors").read_bytes() == (straight / "lora.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("behind")
def test_a_bad_step_is_skipped_before_it_is_known(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next step, and a state that is due in between, begin from the weights before it."""
    config = settings("i2v", **OPTIONS)
    for name, behind in (("behind", 1), ("at once", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "read_behind", behind)
            spoil(patch, 3, 4)
            run(tmp_path / name, config)
    found = [tmp_path / name / "lora.safetensors" for name in ("behind", "at once")]
    assert found[0].read_bytes() == found[1].read_bytes() != (straight / "lora.safetensors").read_bytes()
    assert untimed(metrics(tmp_path / "behind")) == untimed(metrics(tmp_path / "at once"))
