"""An interrupted training, taken up again, is the undisturbed training."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hv15.errors import UserError
from hv15.train.examples import Example
from hv15.train.signals import EXIT_RESUMABLE, Requests
from tests.forked import forked
from tests.train.world import metrics, run, settings, tiny_stores, untimed, varied

OPTIONS: dict[str, Any] = {
    "max_train_steps": 7,
    "state_every_n_steps": 2,
    "save_every_n_steps": 3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "network_dropout": 0.1,
    "caption_dropout": 0.2,
    "network_alpha": 0.3,
    "num_timestep_buckets": 4,
    "weighting_scheme": "min_snr",
    "loss_type": "huber",
}
IN_8_BITS = {"optimizer_args": {"min_8bit_size": 16}}  # so that tiny matrices have 8-bit state
AVERAGING = {"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "constant", "loraplus_lr_ratio": 4}
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer_type": "AdamW"},
    {"optimizer_type": "AdamW8bit", **IN_8_BITS},
    AVERAGING,
]
SLOW: list[dict[str, Any]] = [
    {"optimizer_type": "Muon"},
    {"optimizer_type": "PagedAdamW8bit", **IN_8_BITS},
    {"optimizer_type": "Adafactor", "optimizer_args": {"beta1": 0.9}},
    {"optimizer_type": "Lion", "scale_weight_norms": 0.05},
    {"optimizer_type": "CAME", "learning_rate_patterns": {"txt_": "0.5x"}},
    {"optimizer_type": "AdEMAMix", "optimizer_args": {"t_alpha": 5, "t_beta3": 5}},
    {"optimizer_type": "Prodigy", "learning_rate": 1, "optimizer_args": {"d0": 1e-3, "use_bias_correction": True}},
    {**AVERAGING, "optimizer_type": "ProdigyPlusScheduleFree", "learning_rate": 1, "optimizer_args": {"d0": 1e-3}},
    {"optimizer_type": "pytorch_optimizer.SOAP"},
]
"""The states of these are tested in test_optimizer_state.py, without a training around them."""


def hang_in_step_10(folder: Path, options: dict[str, Any]) -> None:
    """A training that never gets beyond its tenth step."""
    torch.set_num_threads(1)
    Example.prediction = at_step(10, lambda: time.sleep(600))  # type: ignore[method-assign]
    run(folder, settings(**options))


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of equal runs are compared byte for byte, also when somebody commits between the runs."""
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


def at_step(number: int, action: Callable[[], None]) -> Callable[[Example, Any], Any]:
    """Example.prediction as it is, with an action in front of its n-th call: of step n, without accumulation."""
    real, calls = Example.prediction, []

    def error(example: Example, dit: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            action()
        return real(example, dit)

    return error


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "optimizer",
    [*OPTIMIZERS, *(pytest.param(options, marks=pytest.mark.slow) for options in SLOW)],
    ids=lambda options: options["optimizer_type"],
)
def test_stopped_and_resumed_equals_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = settings("i2v", **{**OPTIONS, **optimizer}, i2v_prob=0.5)
    straight = run(tmp_path / "straight", config)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(5, send(signal.SIGTERM)))
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "stopped", config)
    assert stopped.value.code == EXIT_RESUMABLE == 3
    assert "saved at step 5; run the same command to resume" in caplog.text
    assert len(metrics(tmp_path / "stopped")) == 5  # the step was finished
    resumed = run(tmp_path / "stopped", config)
    assert resumed.read_bytes() == straight.read_bytes()
    assert untimed(metrics(tmp_path / "stopped")) == untimed(metrics(tmp_path / "straight"))
    for name in ("lora-step000003.safetensors", "lora-step000006.safetensors"):
        parts = [tmp_path / each / "train" / "checkpoints" / name for each in ("straight", "stopped")]
        assert parts[0].read_bytes() == parts[1].read_bytes()


DRAWING: dict[str, Any] = {"max_train_steps": 4, "caption_dropout": 0.2, "save_every_n_epochs": 1}


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed training on texts to draw and datasets that begin and end, and one on none such."""
    folder = tmp_path_factory.mktemp("drawing")
    items, stores = tiny_stores(folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.train.metadata.git_commit", lambda: None)
        for name, data in (("straight", varied(items)), ("plain", items)):
            run(folder / name, settings(**DRAWING), data=(data, stores))
    return folder


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_drawn_texts_and_datasets_that_begin_and_end_resume_too(
    drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Before, at and after the step at which a dataset ends."""
    config = settings(**DRAWING)
    items, stores = tiny_stores(tmp_path / "cache")
    data = varied(items)
    straight = (drawing / "straight/lora.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(stop, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", config, data=(data, stores))
    assert run(tmp_path / "stopped", config, data=(data[::-1], stores)).read_bytes() == straight
    assert untimed(metrics(tmp_path / "stopped")) == untimed(metrics(drawing / "straight"))
    assert (drawing / "plain/lora.safetensors").read_bytes() != straight


@pytest.mark.slow
def test_what_was_due_where_it_was_stopped_is_done_when_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is due after the very step in which the signal comes."""
    config = settings(max_train_steps=5, save_every_n_steps=3)
    run(tmp_path / "straight", config)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(3, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", config)
    copies = [
        tmp_path / each / "train" / "checkpoints" / "lora-step000003.safetensors" for each in ("straight", "stopped")
    ]
    assert not copies[1].exists()
    run(tmp_path / "stopped", config)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert len(metrics(tmp_path / "stopped", "checkpoint")) == 1


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    """kill -9 of a real process in the middle of a step; then the same training again."""
    options = {**OPTIONS, **OPTIMIZERS[1], "max_train_steps": 11}
    folder, said = tmp_path / "killed", tmp_path / "said"
    with said.open("wb") as log:
        victim = forked(hang_in_step_10, folder, options, stderr=log.fileno())
    while not (folder / "train" / "state" / "step-000008").exists():
        assert victim.exitcode is None, said.read_text()
        time.sleep(0.005)
    victim.kill()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert not (folder / "lora.safetensors").exists()

    resumed = run(folder, settings(**options))
    straight = run(tmp_path / "straight", settings(**options))
    assert resumed.read_bytes() == straight.read_bytes()
    assert untimed(metrics(folder)) == untimed(metrics(tmp_path / "straight"))
    assert metrics(folder, "start")[-1]["step"] == 8


@pytest.mark.slow
def test_a_torn_newest_state_costs_steps_but_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(**OPTIONS)
    straight = run(tmp_path / "straight", config)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(5, send(signal.SIGINT)))
        with pytest.raises(SystemExit):
            run(tmp_path / "torn", config)
    newest = tmp_path / "torn" / "train" / "state" / "step-000005" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    assert run(tmp_path / "torn", config).read_bytes() == straight.read_bytes()
    assert metrics(tmp_path / "torn", "start")[-1]["step"] == 4
    assert untimed(metrics(tmp_path / "torn")) == untimed(metrics(tmp_path / "straight"))


def test_usr1_saves_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[list[str]] = []

    def look() -> None:
        states.append([path.name for path in (tmp_path / "train" / "state").iterdir()])

    monkeypatch.setattr(Example, "prediction", at_step(2, send(signal.SIGUSR1)))
    monkeypatch.setattr(Example, "prediction", at_step(3, look))
    run(tmp_path, settings(max_train_steps=4))
    assert states == [["step-000002"]]
    assert len(metrics(tmp_path)) == 4


def test_a_finished_training_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake removes an output before it runs the job again: the state still knows the result."""
    config = settings(max_train_steps=3)
    first = run(tmp_path, config).read_bytes()
    (tmp_path / "lora.safetensors").unlink()
    monkeypatch.setattr(Example, "prediction", at_step(1, lambda: pytest.fail("trained again")))
    assert run(tmp_path, config).read_bytes() == first
    assert len(metrics(tmp_path)) == 3


def test_another_spec_starts_anew_and_the_old_one_can_come_back(tmp_path: Path) -> None:
    slow, fast = settings(max_train_steps=3), settings(max_train_steps=3, learning_rate=0.05)
    first = run(tmp_path, slow).read_bytes()
    assert run(tmp_path, fast).read_bytes() != first
    assert [record["lr"] for record in metrics(tmp_path)] == [0.05] * 3
    assert run(tmp_path, slow).read_bytes() == first
    assert [record["step"] for record in metrics(tmp_path, "start")] == [0, 3]


def test_another_number_of_batches_a_step_is_refused(tmp_path: Path) -> None:
    """As when two processes resume the state of one; the spec does not hold their number."""
    config, spec = settings(max_train_steps=2, gradient_accumulation_steps=2), {"the": "same"}
    run(tmp_path, config, spec=spec)
    (tmp_path / "lora.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot resume: each step had 2 batches .* would have 1") as error:
        run(tmp_path, settings(max_train_steps=2), spec=spec)
    assert "make the product of these settings 2 again" in (error.value.hint or "")
    run(tmp_path, config, spec=spec)


def test_the_handlers_of_the_caller_come_back(tmp_path: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    run(tmp_path, settings(max_train_steps=1))
    assert [signal.getsignal(number) for number in numbers] == before


def test_under_nohup_a_closed_terminal_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell sends SIGHUP to the whole group; a rank gets it from the first process, for any request."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for is_rank in (False, True):
            monkeypatch.setenv("WORLD_SIZE", "2") if is_rank else monkeypatch.delenv("WORLD_SIZE", raising=False)
            with Requests() as requests:
                os.kill(os.getpid(), signal.SIGHUP)
                assert requests.stop is is_rank
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_works_outside_the_main_thread(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(tmp_path, settings(max_train_steps=1))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
