"""Masks and the prediction without the LoRA in the loss: against closed forms, and in whole trainings."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from hv15.cache.batches import BatchStream, LossRule, MicroBatch, Stores, TrainingItem
from hv15.cache.store import Store
from hv15.lora import LoRANetwork
from hv15.lora.changes import read_changes
from hv15.lora.sizes import AdapterKind
from hv15.models.ready import set_up
from hv15.train.examples import Example
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.losses import LossFunction
from hv15.train.objective import losses_of
from hv15.train.run import make_reader
from hv15.train.step_batches import StepBatches
from tests.train.test_optimizer_step import moved, numbers, plain_step
from tests.train.test_resume import at_step, send
from tests.train.world import CONFIG, metrics, run, settings, tiny_dit, tiny_stores, untimed

PLAIN = LossRule()
PRIOR = LossRule(is_reg=True, targets_prior=True)
OUTSIDE = LossRule(masked_prior_preservation_weight=0.25)


def masked_data(
    folder: Path, rule: LossRule = PLAIN, reg: LossRule = PRIOR, clips: int = 6
) -> tuple[list[TrainingItem], Stores]:
    """The tiny dataset, where every second clip has a mask, and two more clips are regularisation."""
    items, stores = tiny_stores(folder, clips=clips + 2)
    stores = replace(stores, masks=Store(folder, "masks", "c"))
    rng = torch.Generator().manual_seed(2)
    for number, item in enumerate(items[:clips:2]):
        stores.masks.write(f"{number:02d}mask", {"mask": torch.rand(item.shape, generator=rng)}, {})  # type: ignore[union-attr]
        items[2 * number] = replace(item, mask=f"{number:02d}mask")
    plain = [replace(item, loss=rule, dataset="a") for item in items[:clips]]
    return plain + [replace(item, loss=reg, dataset="reg") for item in items[clips:]], stores


def example_of(items: Sequence[TrainingItem], stores: Stores, task: str = "t2v", first: int = 0) -> Example:
    return make_reader(settings(task), stores)(MicroBatch(0, tuple(items), first))


def whole(example: Example) -> Example:
    """The same without its mask and prior."""
    return replace(example, mask=None, with_prior=False, targets_prior=False, outside_weight=0.0)


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


@pytest.mark.parametrize("loss_type", ["mse", "huber", "pseudo_huber"])
def test_the_loss_is_the_weighted_mean_over_the_positions(loss_type: str) -> None:
    rng = torch.Generator().manual_seed(0)
    error, mask = torch.randn(2, 4, 3, 2, 5, generator=rng), torch.rand(2, 3, 2, 5, generator=rng)
    sigma, loss = torch.tensor([0.3, 0.8]), LossFunction(settings(loss_type=loss_type).train)
    found = loss(error, sigma, mask)
    for sample in range(2):
        total = weight = 0.0
        for f in range(3):
            for h in range(2):
                for w in range(5):
                    one = error[sample : sample + 1, :, f : f + 1, h : h + 1, w : w + 1]
                    value = float(loss(one, sigma[sample : sample + 1]).minimised)
                    total, weight = total + float(mask[sample, f, h, w]) * value, weight + float(mask[sample, f, h, w])
        assert float(found.minimised[sample]) == pytest.approx(total / weight, rel=1e-5)
    even = torch.full_like(mask, 0.3)
    assert_close(loss(error, sigma, even).minimised, loss(error, sigma).minimised)
    assert loss(error, sigma, 0 * mask).minimised.tolist() == [0, 0]


def test_nothing_is_learnt_where_the_mask_is_zero(tmp_path: Path) -> None:
    items, stores = masked_data(tmp_path)
    example = example_of(items[:1], stores)
    mask = torch.zeros_like(example.mask)  # type: ignore[arg-type]
    mask[:, 1, 2:, 3:] = 1
    example = replace(example, mask=mask)
    prediction = torch.zeros_like(example.x0).requires_grad_()
    losses_of(LossFunction(settings().train), example, prediction, None).minimised.sum().backward()
    assert prediction.grad is not None
    assert torch.equal((prediction.grad != 0).any(1), mask > 0)
    black = replace(example, mask=torch.zeros_like(mask))
    assert moved(plain_step(), [(0, black)]).abs().max() == 0


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_the_prior_is_the_prediction_of_the_model_without_the_lora(tmp_path: Path, task: str) -> None:
    """Computed here by a model that never had a LoRA; it trains towards it as towards any other target."""
    items, stores = masked_data(tmp_path)
    example = example_of(items[-2:-1], stores, task)
    assert example.targets_prior
    with torch.no_grad():
        target = example.prediction(tiny_dit())
    own = replace(whole(example), noise=target + example.x0)  # then the velocity noise - x0 is the target,
    seen = example.model_input()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Example, "model_input", lambda _: seen)  # but the input stays
        wanted = moved(plain_step(), [(0, own)])
        sums = numbers(plain_step(), [(0, own)]).loss_sums
    assert_close(moved(plain_step(), [(0, example)]), wanted, atol=1e-7, rtol=1e-5)
    found = numbers(plain_step(), [(0, example)])
    assert (found.prior_loss_sum, found.prior_count) == (pytest.approx(sum(sums), rel=1e-5), 1)
    assert not any(found.sample_counts)


def test_a_new_lora_is_at_the_prior(tmp_path: Path) -> None:
    items, stores = masked_data(tmp_path)
    step = plain_step()
    with torch.no_grad():
        for branch in step.network.branches:  # type: ignore[attr-defined]
            branch.ups[0].zero_()
    found = numbers(step, [(0, example_of(items[-2:-1], stores))])
    assert (found.prior_loss_sum, found.grad_norm) == (0, 0)


def test_outside_of_the_mask_the_prior_holds(tmp_path: Path) -> None:
    """The step is that of the clip under its mask, plus a part of that of a regularisation clip under the rest."""
    items, stores = masked_data(tmp_path, OUTSIDE)
    example = example_of(items[:1], stores)
    assert example.mask is not None
    inside = replace(example, outside_weight=0.0)
    outside = replace(example, targets_prior=True, mask=1 - example.mask)
    both, first, second = (moved(plain_step(), [(0, each)]) for each in (example, inside, outside))
    assert_close(both, first + 0.25 * second, atol=1e-7, rtol=1e-4)
    assert numbers(plain_step(), [(0, example)]).prior_loss_sum > 0


def test_clips_without_a_mask_count_as_a_whole(tmp_path: Path) -> None:
    items, stores = masked_data(tmp_path, OUTSIDE)
    items = [replace(item, shape=items[0].shape) for item in items]
    stores.latents.write(items[1].clip, stores.latents.read(items[0].clip), {})  # type: ignore[attr-defined]
    example = example_of(items[:2], stores)
    assert example.mask is not None
    assert example.mask[1].eq(1).all()
    assert not example.mask[0].eq(1).any()
    assert example_of(items[1:2], stores).mask is None
    assert not example_of(items[1:2], stores).with_prior


def test_unmasked_weight_and_probability(tmp_path: Path) -> None:
    rule = LossRule(unmasked_weight=0.4, unmasked_probability=0.3, masked_prior_preservation_weight=1.0)
    items, stores = masked_data(tmp_path, rule)
    mask = stores.masks.read(items[0].mask)["mask"]  # type: ignore[union-attr]
    batches = [MicroBatch(0, (items[0],), sample) for sample in range(300)]
    draws, others = ([*map(make_reader(settings(seed=seed), stores).needs_prior, batches)] for seed in (42, 43))
    assert draws.count(False) == pytest.approx(0.3 * 300, abs=4 * (300 * 0.3 * 0.7) ** 0.5)
    assert draws != others
    for masked in (True, False):
        example = example_of(items[:1], stores, first=draws.index(masked))
        assert example.with_prior == masked
        if example.mask is None:
            assert not masked
        else:
            assert torch.equal(example.mask[0], mask.clamp(min=0.4))


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_every_network_can_be_switched_off(kind: Any, tmp_path: Path) -> None:
    """What lies beneath it stays, and afterwards all is as before, to the bit."""
    items, stores = masked_data(tmp_path)
    example, dit = example_of(items[-2:-1], stores), tiny_dit()
    with torch.no_grad():
        bare = example.prediction(dit)
        beneath = LoRANetwork(dit, rank=1, alpha=1, seed=3)
        for parameter in beneath.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
        changes = read_changes(beneath.state_dict())
        beneath.detach()
        network = LoRANetwork(dit, rank=2, alpha=2, kind=AdapterKind(kind), seed=0)
        for parameter in network.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(4))
        with network.switched_off(dit):
            assert torch.equal(example.prediction(dit), bare)
        network.add_beneath(dit, changes, 0.5)
        before = example.prediction(dit)
        with network.switched_off(dit):
            based = example.prediction(dit)
        assert torch.equal(example.prediction(dit), before)
        network.detach()
        assert not torch.equal(based, bare)
        merely = LoRANetwork(dit, rank=1, alpha=1, seed=0)  # changes nothing
        merely.add_beneath(dit, changes, 0.5)
        assert_close(example.prediction(dit), based)


def test_a_training_with_masks_and_regularisation(tmp_path: Path) -> None:
    """It resumes to the bit, and its steps tell the two losses apart."""
    data = masked_data(tmp_path / "cache", replace(OUTSIDE, unmasked_probability=0.3))
    options = {"max_train_steps": 6, "state_every_n_steps": 2, "network_dropout": 0.1}
    undisturbed = run(tmp_path / "whole", settings("i2v", **options), data=data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(5, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path / "cut", settings("i2v", **options), data=data)
    resumed = run(tmp_path / "cut", settings("i2v", **options), data=data)
    assert resumed.read_bytes() == undisturbed.read_bytes()
    steps = metrics(tmp_path / "whole", "step")
    assert untimed(steps) == untimed(metrics(tmp_path / "cut", "step"))
    stream = BatchStream(data[0], settings().train.seed)
    assert any(step["prior_loss"] is not None for step in steps)
    for number, step in enumerate(steps):
        assert (step["loss"] is None) == stream[number].loss.targets_prior


def test_a_mask_of_ones_is_none(tmp_path: Path) -> None:
    """A mask of ones is none, within rounding."""
    items, stores = tiny_stores(tmp_path / "cache")
    plain = run(tmp_path / "plain", settings(max_train_steps=2), data=(items, stores))
    stores = replace(stores, masks=Store(tmp_path / "cache", "masks", "c"))
    stores.masks.write("mask", {"mask": torch.ones(items[0].shape)}, {})  # type: ignore[union-attr]
    masked = [replace(item, mask="mask") if item.shape == items[0].shape else item for item in items]
    other = run(tmp_path / "ones", settings(max_train_steps=2), data=(masked, stores))
    alone, together = load_file(plain), load_file(other)
    for name, tensor in alone.items():
        assert_close(together[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_options_of_memory_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.models.weights.offload.LEAST", 1)
    items, stores = masked_data(tmp_path, OUTSIDE)
    examples = [(0, example_of(items[:1], stores)), (1, example_of(items[-2:-1], stores))]

    def step(**options: Any) -> Tensor:
        dit = tiny_dit(replace(CONFIG, num_blocks=4))
        set_up(dit, settings(gradient_checkpointing=True, **options).train, torch.device("cpu"))
        return moved(plain_step(dit=dit), examples)

    plain = step()
    assert torch.equal(step(blocks_to_swap=2, gradient_checkpointing_cpu_offload=True), plain)


def test_all_processes_run_the_same_passes(tmp_path: Path) -> None:
    """With the base divided among them, a process whose batch needs no prior computes one if another's does."""
    items, stores = masked_data(tmp_path)
    batches = StepBatches(BatchStream(items, 1), accumulation=2, processes=2)
    reader = make_reader(settings(), stores)
    passes: list[list[bool]] = []
    for process in range(2):
        options = settings(shard_base=True, num_processes=2).train
        trainer = Trainer(
            settings=LoopSettings.from_settings(options, 6),
            optimizer_step=plain_step(),
            batches=batches,
            reader=reader,
            accelerator=None,  # type: ignore[arg-type]
            folder=tmp_path,
            spec="",
        )
        passes.append([trainer._read(task)[1].with_prior for task in batches.share(0, 6, process)])
    assert passes[0] == passes[1]
    needed = [reader.needs_prior(batches.stream[index]) for index in range(24)]
    assert passes[0] == [a or b for a, b in zip(needed[::2], needed[1::2], strict=True)]
    assert any(passes[0])
    assert not all(passes[0])
    assert needed[::2] != passes[0]
