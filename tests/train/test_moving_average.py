"""The moving average of a LoRA: against torch's, and against the steps of a training one by one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from hv15.records.paths import average_of
from hv15.train.examples import Example
from hv15.train.moving_average import PARTS, MovingAverage, decay_after
from tests.train.test_resume import at_step, send
from tests.train.world import metrics, run, settings, spoil

pytestmark = pytest.mark.numeric

GOOD, BAD = torch.tensor(True), torch.tensor(False)
COUNT = PARTS + 3


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


def network() -> nn.ParameterDict:
    draws = torch.Generator().manual_seed(0)
    return nn.ParameterDict({str(n): nn.Parameter(torch.randn(2, n + 1, generator=draws)) for n in range(COUNT)})


def move(parameters: nn.ParameterDict, step: int) -> None:
    draws = torch.Generator().manual_seed(step + 1)
    with torch.no_grad():
        for each in parameters.values():
            each.add_(torch.randn(each.shape, generator=draws))


@pytest.mark.parametrize("staged", [False, True])
def test_after_the_warm_up_it_is_torchs(staged: bool) -> None:
    parameters = network()
    theirs = AveragedModel(parameters, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(parameters)  # the first call copies
    ours = MovingAverage(dict(parameters), 0.9, staged=staged)
    ours.steps = 1000
    for step in range(5):
        move(parameters, step)
        ours.update(GOOD)
        theirs.update_parameters(parameters)
    assert_close(ours.state(), dict(theirs.module), atol=1e-6, rtol=1e-5)


def test_the_warm_up_forgets_the_beginning() -> None:
    """Against the sum of all steps with their weights, in double precision."""
    parameters, decay, weights = network(), 0.8, [1.0]
    seen = [[each.detach().double().clone() for each in parameters.values()]]
    ours = MovingAverage(dict(parameters), decay)
    for step in range(60):
        move(parameters, step)
        ours.update(GOOD)
        seen.append([each.detach().double().clone() for each in parameters.values()])
        kept = min(decay, (1 + step) / (10 + step))
        weights = [kept * weight for weight in weights] + [1 - kept]
    expected = [sum(w * values[n] for w, values in zip(weights, seen, strict=True)) for n in range(COUNT)]
    for found, wanted in zip(ours.state().values(), expected, strict=True):
        assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    assert [decay_after(step, decay) for step in (0, 8, 26, 36)] == [0.1, 0.5, 0.75, decay]


@pytest.mark.parametrize("staged", [False, True])
def test_a_bad_step_is_not_averaged(staged: bool) -> None:
    parameters = network()
    ours = MovingAverage(dict(parameters), 0.9, staged=staged)
    move(parameters, 0)
    ours.update(GOOD)
    before = {name: value.clone() for name, value in ours.state().items()}
    move(parameters, 1)
    ours.update(BAD)
    assert all(torch.equal(value, before[name]) for name, value in ours.state().items())
    assert ours.steps == 2


def test_one_in_the_machines_memory_is_the_same() -> None:
    parameters = network()
    there, here = (MovingAverage(dict(parameters), 0.9, staged=staged) for staged in (True, False))
    for step in range(6):
        move(parameters, step)
        for each in (there, here):
            each.update(BAD if step == 3 else GOOD)
    assert all(torch.equal(value, here.state()[name]) for name, value in there.state().items())


def test_a_training_keeps_the_average_of_its_steps(tmp_path: Path) -> None:
    """Each step is kept as a copy, and averaged here. The LoRA itself is that of a training without an average."""
    options = {"max_train_steps": 5, "save_every_n_steps": 1, "network_alpha": 3}
    output = run(tmp_path / "averaged", settings(**options, ema_decay=0.4))
    plain = load_file(run(tmp_path / "plain", settings(**options)))
    start = load_file(run(tmp_path / "start", settings(**{**options, "max_train_steps": 1, "learning_rate": 0})))
    folder = tmp_path / "averaged" / "train" / "checkpoints"
    expected = start
    for step in range(5):
        kept = min(0.4, (1 + step) / (10 + step))
        now = load_file(folder / f"lora-step{step + 1:06d}.safetensors")
        expected = {name: kept * value + (1 - kept) * now[name] for name, value in expected.items()}
        found = load_file(folder / f"lora-step{step + 1:06d}.ema.safetensors")
        assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert equal(load_file(average_of(output)), found)
    assert equal(load_file(output), plain)
    for path, decay in ((average_of(output), "0.4"), (output, None)):
        with safe_open(path, "pt") as file:
            assert file.metadata().get("hv15.ema_decay") == decay
            assert json.loads(file.metadata()["hv15.made_from"])["dit"] == "tiny"


def test_old_copies_go_with_their_averages(tmp_path: Path) -> None:
    run(tmp_path, settings(max_train_steps=4, save_every_n_steps=1, save_last_n_steps=2, ema_decay=0.9))
    names = sorted(path.name for path in (tmp_path / "train" / "checkpoints").iterdir())
    assert names == [f"lora-step00000{n}{kind}.safetensors" for n in (3, 4) for kind in (".ema", "")]
    assert len(metrics(tmp_path, "checkpoint")) == 8


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_its_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(max_train_steps=6, ema_decay=0.9, state_every_n_steps=2)
    straight = run(tmp_path / "straight", config)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(3, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", config)
    resumed = run(tmp_path / "stopped", config)
    assert average_of(resumed).read_bytes() == average_of(straight).read_bytes()
    assert resumed.read_bytes() == straight.read_bytes()


def test_an_average_skips_a_bad_step_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 3)
    output = run(tmp_path, settings(max_train_steps=3, save_every_n_steps=2, ema_decay=0.9))
    before = tmp_path / "train" / "checkpoints" / "lora-step000002.ema.safetensors"
    assert equal(load_file(average_of(output)), load_file(before))


def test_a_training_without_one_writes_none(tmp_path: Path) -> None:
    output = run(tmp_path, settings(max_train_steps=2))
    assert not average_of(output).exists()
    assert not list(tmp_path.rglob("average.safetensors"))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
