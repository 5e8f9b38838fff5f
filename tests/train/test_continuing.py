"""A training that goes on: the same one with another length, and another one that starts from it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hv15.cache.batches import BatchStream
from hv15.errors import UserError
from hv15.train.examples import Example
from hv15.train.losses import mean_square
from hv15.train.networks import make_network
from hv15.train.run import make_reader
from hv15.train.state import load_state
from tests.train.continued import Data, folders, lines, metadata, starts, tensors, train
from tests.train.test_resume import at_step, no_commit, send  # noqa: F401  (a fixture)
from tests.train.world import metrics, settings, tiny_dit, tiny_stores, varied


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return tiny_stores(tmp_path_factory.mktemp("cache"))


# -- another length of the same training ----------------------------------------------------------------------------

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "constant": ({}, {"max_train_steps": 2}, {"max_train_steps": 4}),
    "warm-up in steps": ({"lr_warmup_steps": 2}, {"max_train_steps": 2}, {"max_train_steps": 4}),
    "warm-up that was not over": ({"lr_warmup_steps": 2}, {"max_train_steps": 2}, {"max_train_steps": 3}),
    "epochs": ({"save_every_n_epochs": 1}, {"max_train_epochs": 1}, {"max_train_epochs": 2}),
    "epochs to steps": ({}, {"max_train_epochs": 1}, {"max_train_steps": 5}),
    "i2v, dropout, copies": (
        {"task": "i2v", "i2v_prob": 0.5, "network_dropout": 0.2, "caption_dropout": 0.3, "save_every_n_steps": 1},
        {"max_train_steps": 2},
        {"max_train_steps": 4},
    ),
    "datasets that begin and end": ({}, {"max_train_epochs": 1}, {"max_train_epochs": 3}),
    "8 bits": (
        {"optimizer_type": "AdamW8bit", "optimizer_args": {"min_8bit_size": 16}},
        {"max_train_steps": 2},
        {"max_train_steps": 4},
    ),
    "a moving average and a validation": (
        {"ema_decay": 0.8, "validation": {"fraction": 0.1, "every_n_steps": 1, "keep_best": True, "samples": 2}},
        {"max_train_steps": 2},
        {"max_train_steps": 4},
    ),
    "an average instead of a schedule": (
        {"optimizer_type": "AdamWScheduleFree"},
        {"max_train_steps": 2},
        {"max_train_steps": 4},
    ),
    "noise levels in parts, a huber loss": (
        {"num_timestep_buckets": 4, "loss_type": "huber", "weighting_scheme": "min_snr", "min_timestep": 100},
        {"max_train_steps": 3},
        {"max_train_steps": 5},
    ),
    "muon, accumulated": (
        {"optimizer_type": "Muon", "gradient_accumulation_steps": 2},
        {"max_train_steps": 2},
        {"max_train_steps": 4},
    ),
}


COVERED = (
    *("constant", "warm-up that was not over", "epochs to steps", "8 bits", "an average instead of a schedule"),
    *("noise levels in parts, a huber loss", "warm-up in steps", "epochs", "muon, accumulated"),
    "a moving average and a validation",
)
"""What the others, and the optimizers of tests/train/test_resume.py, go through as well."""


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in COVERED else way for way in WAYS])
def test_a_greater_length_continues_and_is_one_long_training(tmp_path: Path, data: Data, way: str) -> None:
    options, short, long = WAYS[way]
    if way == "datasets that begin and end":
        data = (varied(data[0]), data[1])
    straight = train(tmp_path / "straight", data, **options, **long)
    train(tmp_path / "continued", data, **options, **short)
    continued = train(tmp_path / "continued", data, **options, **long)
    assert starts(tmp_path / "continued")[-1] > 0
    assert continued.read_bytes() == straight.read_bytes()
    assert lines(tmp_path / "continued") == lines(tmp_path / "straight")
    copies = [
        {path.name: tensors(path) for path in (tmp_path / each / "results/train").glob("checkpoints/*")}
        for each in ("straight", "continued")
    ]
    assert copies[0] == copies[1]
    assert folders(tmp_path / "continued") == ["train"]


@pytest.mark.slow
def test_an_unfinished_training_continues_too(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = train(tmp_path / "straight", data, max_train_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(2, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            train(tmp_path / "stopped", data, max_train_steps=3)
    assert train(tmp_path / "stopped", data, max_train_steps=5).read_bytes() == straight.read_bytes()
    assert starts(tmp_path / "stopped") == [0, 2]
    assert lines(tmp_path / "stopped") == lines(tmp_path / "straight")


@pytest.mark.parametrize(
    "options",
    [
        {"lr_scheduler": "cosine"},
        pytest.param({"lr_scheduler": "linear"}, marks=pytest.mark.slow),
        pytest.param({"lr_warmup_steps": 0.5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_rate_that_depends_on_the_length_makes_it_another_training(
    tmp_path: Path, data: Data, options: dict[str, Any]
) -> None:
    first = train(tmp_path, data, max_train_steps=2, **options).read_bytes()
    straight = train(tmp_path / "straight", data, max_train_steps=3, **options)
    assert train(tmp_path, data, max_train_steps=3, **options).read_bytes() == straight.read_bytes()
    assert starts(tmp_path) == [0]
    assert folders(tmp_path) == ["train", "train"]
    assert train(tmp_path, data, max_train_steps=2, **options).read_bytes() == first


def test_back_and_forth_between_lengths_trains_nothing_twice(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {length: train(tmp_path, data, max_train_steps=length).read_bytes() for length in (2, 4)}
    before = lines(tmp_path)
    monkeypatch.setattr(Example, "prediction", at_step(1, lambda: pytest.fail("trained again")))
    for length in (2, 4, 2, 4):
        assert train(tmp_path, data, max_train_steps=length).read_bytes() == made[length]
        assert lines(tmp_path) == before[:length]
    assert folders(tmp_path) == ["train", "train"]


def test_a_shorter_length_before_the_first_state_begins_anew(tmp_path: Path, data: Data) -> None:
    long = train(tmp_path, data, max_train_steps=3).read_bytes()
    short = train(tmp_path, data, max_train_steps=2)
    assert short.read_bytes() == train(tmp_path / "straight", data, max_train_steps=2).read_bytes()
    assert train(tmp_path, data, max_train_steps=3).read_bytes() == long
    assert starts(tmp_path)[-1] == 3


def test_another_number_format_of_the_file_trains_nothing(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, data, max_train_steps=2)
    monkeypatch.setattr(Example, "prediction", at_step(1, lambda: pytest.fail("trained again")))
    found = load_file(train(tmp_path, data, max_train_steps=2, save_precision="bfloat16", save_every_n_steps=2))
    assert {tensor.dtype for tensor in found.values() if tensor.ndim} == {torch.bfloat16}


# -- another training that starts from it ---------------------------------------------------------------------------


def by_hand(root: Path, data: Data, state: Path, rate: float, steps: range) -> dict[str, Tensor]:
    """What plain torch makes of a state, with another learning rate."""
    items, stores = data
    config, dit, saved = settings(), tiny_dit(), load_state(state)
    network = make_network(config, dit)
    network.load_state_dict(saved.lora)
    for parameter in network.parameters():  # the last block has some that no output depends on
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(network.parameter_groups(rate))
    optimizer.load_state_dict(saved.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = rate
    reader, stream = make_reader(config, stores), BatchStream(items, config.train.seed)
    for step in steps:
        optimizer.zero_grad(set_to_none=False)
        mean_square(reader(stream[step]).error(dit)).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.state_dict()


def test_another_rate_goes_on_with_weights_optimizer_and_counts(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=2)
    wanted = by_hand(tmp_path, data, tmp_path / "results/train/state/step-000002", 0.003, range(2, 5))
    lora = train(tmp_path, data, max_train_steps=5, learning_rate=0.003, continue_from="latest")
    for name, tensor in load_file(lora).items():
        torch.testing.assert_close(tensor, wanted[name], atol=0, rtol=0)
    assert [record["step"] for record in metrics(tmp_path / "results")] == [3, 4, 5]
    assert [record["lr"] for record in metrics(tmp_path / "results")] == [0.003] * 3
    assert folders(tmp_path) == ["train", "train"]


def test_it_is_the_same_whenever_it_is_planned(tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, and taken up again: `latest` stays what it was, although there are newer states, and no older folder."""
    options = {"learning_rate": 0.003, "continue_from": "latest"}
    for each in ("straight", "stopped"):
        train(tmp_path / each, data, max_train_steps=2)
    straight = train(tmp_path / "straight", data, max_train_steps=6, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(2, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            train(tmp_path / "stopped", data, max_train_steps=5, **options)
    for path in (tmp_path / "stopped/results").glob("train-*"):
        path.rename(tmp_path / "gone")
    stopped = train(tmp_path / "stopped", data, max_train_steps=6, **options)
    assert starts(tmp_path / "stopped") == [2, 4]
    assert stopped.read_bytes() == straight.read_bytes()


@pytest.mark.slow
def test_without_a_first_state_it_starts_from_the_origin_again(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"learning_rate": 0.003, "continue_from": "latest", "max_train_steps": 4}
    train(tmp_path, data, max_train_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(1, lambda: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            train(tmp_path, data, **options)
    interrupted = train(tmp_path, data, **options).read_bytes()
    train(tmp_path / "straight", data, max_train_steps=2)
    assert train(tmp_path / "straight", data, **options).read_bytes() == interrupted


def test_any_state_can_be_named(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=4, state_every_n_steps=2)
    options = {"learning_rate": 0.003, "max_train_steps": 5}
    by_path = train(tmp_path, data, **options, continue_from="results/train/state/step-000002")
    spec = json.loads(metadata(by_path)["hv15.made_from"])
    assert spec["train"]["continue_from"]["step"] == 2
    made = tensors(by_path)
    digest = spec["train"]["continue_from"]["state"]
    for other in (digest, "results/train/origin"):
        again = train(tmp_path, data, **options, continue_from=other)
        assert starts(tmp_path) == [2] + [5] * (len(starts(tmp_path)) - 1), "it is the same training"
        assert tensors(again) == made


@pytest.mark.parametrize(
    "file",
    [
        "results/lora.safetensors",
        pytest.param("results/train/checkpoints/lora-step000002.safetensors", marks=pytest.mark.slow),
    ],
)
def test_a_lora_brings_weights_alone(tmp_path: Path, data: Data, file: str) -> None:
    train(tmp_path, data, max_train_steps=2, save_every_n_steps=2)
    (tmp_path / "start.safetensors").write_bytes((tmp_path / file).read_bytes())
    reference = train(tmp_path / "other", data, max_train_steps=3, network_weights=str(tmp_path / "start.safetensors"))
    options = {"max_train_steps": 3, "continue_from": file}
    lora = train(tmp_path, data, **options)
    assert tensors(lora) == tensors(reference)
    assert starts(tmp_path) == [0]
    first = lora.read_bytes()
    assert train(tmp_path, data, **options).read_bytes() == first, "although the file is another one now"


def test_another_optimizer_needs_a_new_state(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=2)
    options = {"max_train_steps": 3, "optimizer_type": "Muon", "continue_from": "latest"}
    with pytest.raises(UserError, match=r"the state is one of AdamW, but train\.optimizer_type is Muon") as caught:
        train(tmp_path, data, **options)
    assert "reset_optimizer: true" in caught.value.hint
    assert starts(train(tmp_path, data, **options, reset_optimizer=True).parents[1]) == [2]


def test_another_network_is_refused(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=2)
    with pytest.raises(UserError, match=r"train\.continue_from: lora_unet\w+\.\w+\.weight is .*, expected "):
        train(tmp_path, data, max_train_steps=3, network_dim=8, continue_from="latest")


def test_arguments_of_the_optimizer_are_the_new_ones(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[dict[str, Any]] = []
    real = torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *args: Any) -> Any:
        groups.append(dict(optimizer.param_groups[0]))
        return real(optimizer, *args)

    train(tmp_path, data, max_train_steps=1)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(tmp_path, data, max_train_steps=2, optimizer_args={"weight_decay": 0.25}, continue_from="latest")
    assert [group["weight_decay"] for group in groups] == [0.25]


def test_there_must_be_steps_left(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=4)
    with pytest.raises(UserError, match="after step 4, and steps count on, but the training has 4 steps in all"):
        train(tmp_path, data, max_train_steps=4, learning_rate=0.003, continue_from="latest")
    with pytest.raises(UserError, match="the training has 3 steps in all"):
        train(tmp_path, data, max_train_epochs=1, learning_rate=0.003, continue_from="latest")
