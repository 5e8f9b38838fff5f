"""Validation: what is measured, against sums done here; that it changes nothing; the best copy, and the early end."""

from __future__ import annotations

import hashlib
import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file

from hv15.cache.batches import BatchStream, Stores, TrainingItem
from hv15.config.training.validation import ValidationSettings
from hv15.lora import LoRANetwork
from hv15.models.latents import SCALING_FACTOR
from hv15.records.paths import ProjectPaths
from hv15.train.examples import Example
from hv15.train.loop import Trainer
from hv15.train.lora_writer import LoRAWriter
from hv15.train.run import make_optimizer_step
from hv15.train.step_batches import StepBatches
from hv15.train.stopping import Standing, Stopping
from hv15.train.validation import (
    ORDER,
    PROBABILITIES,
    Measurement,
    Validation,
    choose_pairs,
    make_measurements,
    make_validation,
)
from tests.train.test_resume import at_step, send
from tests.train.world import HELD_OUT, metrics, run, settings, tiny_dit, tiny_stores, untimed

VALIDATED: dict[str, Any] = {"validation": {"fraction": 0.1, "every_n_steps": 2, "at_first": True}}
FEW: dict[str, Any] = {"validation": {**VALIDATED["validation"], "samples": 3}}


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TrainingItem], Stores]:
    return tiny_stores(tmp_path_factory.mktemp("cache"))


def item(name: str, frames: int = 3) -> TrainingItem:
    return TrainingItem(f"{name} clip", f"{name} caption", (frames, 4, 6))


def validation(data: tuple[list[TrainingItem], Stores], task: str = "t2v", **train: Any) -> Validation:
    """The validation of a training whose LoRA already adds something."""
    items, stores = data
    config = settings(task, **{**VALIDATED, **train})
    dit = tiny_dit()
    dropout = config.train.network_dropout
    network = LoRANetwork(dit, rank=4, alpha=4, dropout=dropout, module_dropout=config.train.module_dropout, seed=0)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(network.named_parameters())):
            if "lora_up" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
    step = make_optimizer_step(config.train, dit, network, torch.device("cpu"))
    batches = StepBatches(BatchStream(items[HELD_OUT:], 1), 1)
    writer = LoRAWriter(network, step.optimizer, None, lambda _: {}, torch.float32)
    parts = (items[:HELD_OUT], items[HELD_OUT:])
    return make_validation(config, *parts, stores, batches, step, network, writer, Path("best"), Accelerator(cpu=True))


# -- what is measured -----------------------------------------------------------------------------------------------


def test_each_level_has_as_many_pairs_with_clips_of_its_own() -> None:
    items = [item(str(number)) for number in range(40)]
    pairs = choose_pairs(items, 36)
    assert sorted(pair.level for pair in pairs) == sorted([*range(9)] * 4)
    for level in range(9):
        assert len({pair.item.clip for pair in pairs if pair.level == level}) == 4
    assert len({pair.item.clip for pair in pairs}) > 20
    few = [pair.level for pair in choose_pairs(items, 3)]
    assert few == list(ORDER[:3]) == [4, 0, 8]


def test_a_further_clip_changes_few_pairs() -> None:
    items = [item(str(number)) for number in range(60)]
    before, after = choose_pairs(items[:59], 18), choose_pairs(items, 18)
    assert sum(a.item != b.item for a, b in zip(before, after, strict=True)) <= 2
    assert choose_pairs(items[::-1] + items, 18) == after, "neither order nor twins matter"


def test_few_clips_are_used_again_with_other_noise(data: Any) -> None:
    pairs = choose_pairs([item("a"), item("b")], 36)
    assert len({(pair.item.clip, pair.level, pair.draw) for pair in pairs}) == 36
    ours = validation(data)
    first, again = (ours.example(each._replace(pair=each.pair._replace(draw=draw)))
                    for draw, each in ((0, ours.measurements[0]), (1, ours.measurements[0])))  # fmt: skip
    assert torch.equal(first.x0, again.x0)
    assert not torch.equal(first.noise, again.noise)


@pytest.mark.parametrize(
    ("probability", "ways"), [(0.0, [False, False]), (1.0, [True, False]), (0.3, [False, True, False])]
)
def test_both_tasks_are_measured_where_both_are_trained(probability: float, ways: list[bool]) -> None:
    """A clip, then a still image, which is always text-to-video."""
    moving = make_measurements([item("a")], [], 0, probability)
    assert moving == []
    found = [make_measurements([item("a", frames)], [item("b")], 1, probability) for frames in (3, 1)]
    assert [each.i2v for part in found for each in part if not each.is_trained] == ways


def by_hand(ours: Validation, each: Measurement, data: Any, shift: float = 3.0) -> float:
    """The loss of a measurement, without the code that the training shares."""
    stores = data[1]
    clip, caption = stores.latents.read(each.pair.item.clip), stores.texts.read(each.pair.item.caption)
    x0 = clip["latents"][None] * SCALING_FACTOR
    name = f"0/validation/{each.pair.item.clip}/{each.pair.level}/{each.pair.draw}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    normal = 1 / (1 + math.exp(-NormalDist().inv_cdf((each.pair.level + 1) / 10)))
    sigma = shift * normal / (1 + (shift - 1) * normal)
    condition = torch.zeros_like(x0)
    mask = torch.zeros_like(x0[:, :1])
    if each.i2v:
        condition[:, :, 0], mask[:, :, 0] = x0[:, :, 0], 1
    seen = torch.cat([(1 - sigma) * x0 + sigma * noise, condition, mask], 1)
    cond = ours.example(each).condition
    assert torch.equal(cond.text[0], caption["text"])
    with torch.no_grad():
        velocity = ours.dit(seen, torch.tensor([1000 * sigma]), cond)
    return float((velocity - (noise - x0)).square().mean())


@pytest.mark.parametrize("task", ["t2v", pytest.param("i2v", marks=pytest.mark.slow)])
def test_the_losses_are_those_of_the_clips_at_these_levels(task: str, data: Any) -> None:
    ours = validation(data, task, i2v_prob=0.5)
    ours.network.eval()
    expected = [by_hand(ours, each, data) for each in ours.measurements]
    assert ours.measure() == pytest.approx(expected, rel=1e-4)
    assert {each.i2v for each in ours.measurements} == ({False} if task == "t2v" else {False, True})
    assert ours.sigmas == pytest.approx(sorted(ours.sigmas))


@pytest.mark.slow
def test_even_levels_are_the_same_whatever_is_trained(data: Any) -> None:
    """Only then can the losses of trainings with different noise levels be compared."""
    own, even = (
        [validation(data, discrete_flow_shift=shift, **({"validation": levels})) for shift in (1.0, 7.0)]
        for levels in (VALIDATED["validation"], {**VALIDATED["validation"], "noise_levels": "even"})
    )
    assert own[0].sigmas != own[1].sigmas
    assert own[0].measure() != own[1].measure()
    assert even[0].sigmas == even[1].sigmas == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert even[0].measure() == even[1].measure()


@pytest.mark.slow
def test_without_dropout_and_without_a_trace(data: Any) -> None:
    """Measured twice in a training with much dropout: the same as without, and no random state moves."""
    plain = validation(data).measure()
    ours = validation(data, network_dropout=0.5, module_dropout=0.5, caption_dropout=0.9)
    before = torch.get_rng_state()
    assert ours.measure() == ours.measure() == plain
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.network.training
    assert all(parameter.grad is None for parameter in ours.network.parameters())


# -- in a training --------------------------------------------------------------------------------------------------


def tensors_equal(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_changes_nothing_in_the_lora(tmp_path: Path) -> None:
    options = {"max_train_steps": 5, "network_dropout": 0.2, "module_dropout": 0.1, "caption_dropout": 0.2}
    items, stores = tiny_stores(tmp_path / "cache")
    with_it = run(tmp_path / "with", settings(**options, **FEW), data=(items, stores))
    without = run(tmp_path / "without", settings(**options), data=(items[HELD_OUT:], stores))
    assert tensors_equal(with_it, without)
    both = [untimed(metrics(tmp_path / name)) for name in ("with", "without")]
    assert both[0] == both[1]
    assert [record["step"] for record in metrics(tmp_path / "with", "validation")] == [0, 2, 4]


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_number(tmp_path: Path) -> None:
    for name, on in (("on", True), ("off", False)):
        run(tmp_path / name, settings(max_train_steps=2, gradient_checkpointing=on, **FEW))
    assert untimed(metrics(tmp_path / "on", "validation")) == untimed(metrics(tmp_path / "off", "validation"))


def test_a_record_has_the_means(tmp_path: Path, data: Any) -> None:
    run(tmp_path, settings("i2v", max_train_steps=2, i2v_prob=0.5, **VALIDATED))
    first, last = metrics(tmp_path, "validation")
    for record in (first, last):
        assert len(record["loss_by_quantile"]) == len(record["trained_loss_by_quantile"]) == len(record["sigmas"]) == 9
        assert record["loss_t2v"] != record["loss_i2v"]
    assert (first["is_best"], first["loss"] > 0) == (True, True)
    ours = validation(data, "i2v", i2v_prob=0.5)
    with torch.no_grad():
        for name, parameter in ours.network.named_parameters():
            if "lora_up" in name:
                parameter.zero_()  # as before the first step
    losses = list(zip(ours.measure(), ours.measurements, strict=True))
    held_out = [(loss, each) for loss, each in losses if not each.is_trained]
    assert first["loss"] == pytest.approx(fmean(loss for loss, _ in held_out))
    assert first["trained_loss"] == pytest.approx(fmean(loss for loss, each in losses if each.is_trained))
    for name, is_trained, i2v in (
        ("loss_t2v", False, False),
        ("loss_i2v", False, True),
        ("trained_loss_t2v", True, False),
        ("trained_loss_i2v", True, True),
    ):
        alike = [loss for loss, each in losses if (each.is_trained, each.i2v) == (is_trained, i2v)]
        assert first[name] == pytest.approx(fmean(alike)), name
    assert first["loss_by_quantile"][4] == pytest.approx(fmean(loss for loss, each in held_out if each.pair.level == 4))


@pytest.mark.slow
def test_trainings_with_other_seeds_are_measured_alike(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path / str(seed), settings(max_train_steps=1, seed=seed, **FEW))
    first, second = (untimed(metrics(tmp_path / seed, "validation"))[0] for seed in ("1", "2"))
    held_out = ("loss", "loss_by_quantile", "sigmas")
    assert {name: first[name] for name in held_out} == {name: second[name] for name in held_out}


def test_the_best_copy_is_the_lora_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the training was stopped in between."""
    losses(monkeypatch, 4.0, 2.0, 3.0)
    options = {"max_train_steps": 6, "save_every_n_steps": 2, "ema_decay": 0.5}
    config = settings(**options, validation={**VALIDATED["validation"], "at_first": False, "keep_best": True})
    run(tmp_path / "straight", config)
    folder = tmp_path / "straight" / "train" / "checkpoints"
    for kind in ("", ".ema"):
        assert tensors_equal(folder / f"best{kind}.safetensors", folder / f"lora-step000004{kind}.safetensors")
    with safe_open(folder / "best.safetensors", "pt") as file:
        assert (file.metadata()["hv15.steps"], file.metadata()["hv15.validation_loss"]) == ("4", "2.0")
    assert [record["is_best"] for record in metrics(tmp_path / "straight", "validation")] == [True, True, False]
    losses(monkeypatch, 4.0, 2.0, 3.0)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(4, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", config)
    assert len(metrics(tmp_path / "stopped", "validation")) == 1
    run(tmp_path / "stopped", config)
    assert (tmp_path / "stopped/train/checkpoints/best.safetensors").read_bytes() == (
        folder / "best.safetensors"
    ).read_bytes()


def losses(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the validations measure these losses, one after the other."""
    left = list(values)

    def measure(ours: Validation) -> Sequence[float]:
        return [left.pop(0)] * len(ours.measurements)

    monkeypatch.setattr(Validation, "measure", measure)


PATIENT: dict[str, Any] = {"validation": {"fraction": 0.1, "every_n_steps": 1, "patience": 2}}


def test_patience_ends_a_training_as_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses(monkeypatch, 3.0, 2.0, 2.0, 5.0)
    ended = run(tmp_path / "ended", settings(max_train_steps=9, **PATIENT))
    short = run(tmp_path / "short", settings(max_train_steps=4), data=_trained(tmp_path))
    assert tensors_equal(ended, short)
    with safe_open(ended, "pt") as file:
        assert file.metadata()["hv15.steps"] == "4"
    (end,) = metrics(tmp_path / "ended", "end")
    assert (end["step"], end["total_steps"]) == (4, 4)
    assert end["reason"] == "the validation loss was lowest after step 2, 2 validations ago"
    assert json.loads((tmp_path / "ended/train/summary.json").read_text())["steps"] == 4
    first = ended.read_bytes()
    ended.unlink()
    monkeypatch.setattr(Example, "prediction", at_step(1, lambda: pytest.fail("trained again")))
    assert run(tmp_path / "ended", settings(max_train_steps=9, **PATIENT)).read_bytes() == first
    assert len(metrics(tmp_path / "ended", "end")) == 1


def _trained(folder: Path) -> tuple[list[TrainingItem], Stores]:
    items, stores = tiny_stores(folder / "cache")
    return items[HELD_OUT:], stores


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_early_end_comes_at_the_same_step_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Stopped before the validation that is due then; at step 4 it is the one that ends the training."""
    config = settings(max_train_steps=9, **PATIENT)
    losses(monkeypatch, 3.0, 2.0, 2.0, 5.0)
    straight = run(tmp_path / "straight", config)
    losses(monkeypatch, 3.0, 2.0, 2.0, 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(stop, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", config)
    assert run(tmp_path / "stopped", config).read_bytes() == straight.read_bytes()
    kinds = ("step", "validation", "end")
    both = [[untimed(metrics(tmp_path / name, kind)) for kind in kinds] for name in ("straight", "stopped")]
    assert both[0] == both[1]


@pytest.mark.slow
def test_a_killed_training_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its third validation; the last state was saved before the second, so two are made again."""
    config = settings(max_train_steps=9, state_every_n_steps=1000, **PATIENT)
    losses(monkeypatch, 3.0, 2.0, 2.0, 3.0, 2.0, 2.0, 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_saves_state", lambda _, step: step == 1)
        patch.setattr(Example, "prediction", at_step(4, _kill))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", config)
    losses(monkeypatch, 2.0, 2.0, 5.0)
    killed = run(tmp_path / "killed", config)
    losses(monkeypatch, 3.0, 2.0, 2.0, 5.0)
    assert killed.read_bytes() == run(tmp_path / "straight", config).read_bytes()


def _kill() -> None:
    raise KeyboardInterrupt


def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses(monkeypatch, math.nan, 2.0, math.inf, 3.0)
    run(tmp_path, settings(max_train_steps=5, **PATIENT))
    found = metrics(tmp_path, "validation")
    assert [record["loss"] for record in found] == [None, 2.0, None, 3.0]
    assert [record["is_best"] for record in found] == [False, True, False, False]


def test_the_standing_counts_from_the_first_lowest_loss() -> None:
    standing = Standing()
    for step, loss in enumerate([3.0, 1.0, 1.0, None, 2.0], start=1):
        standing = standing.after(step, loss)
    assert standing == Standing(1.0, 2, 3)
    assert [Stopping(patience, standing).is_due for patience in (None, 4, 3, 1)] == [False, False, True, True]


# -- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "checkpointing", "both", "samples_per_step", "share"),
    [({}, True, False, 1, 1 / 3), ({}, True, True, 2, 1 / 3), ({"samples": 18}, False, False, 8, 1 / 2)],
)
def test_by_default_it_takes_less_than_a_hundredth_of_the_time(
    asked: dict[str, Any], checkpointing: bool, both: bool, samples_per_step: int, share: float
) -> None:
    options = ValidationSettings.model_validate({"fraction": 0.1, **asked})
    steps = options.interval(samples_per_step, both_tasks=both, checkpointing=checkpointing)
    assert steps is not None
    cost = options.passes(both_tasks=both) * share / samples_per_step  # in steps
    assert 0.009 < cost / steps <= 0.01
    assert ValidationSettings.model_validate({"fraction": 0.1, "every_n_epochs": 2}).interval(
        samples_per_step, both_tasks=both, checkpointing=checkpointing
    ) is None  # fmt: skip


def test_probabilities_and_paths() -> None:
    assert pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) == PROBABILITIES
    assert sorted(ORDER) == list(range(9))
    assert str(ProjectPaths().best) == "results/train/checkpoints/best.safetensors"
