"""The loop: gradients, schedule, records, checkpoints, trouble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.testing import assert_close

from hv15.cache.batches import BatchStream, MicroBatch, Stores, TrainingItem
from hv15.errors import UserError
from hv15.lora import LoRANetwork
from hv15.train.examples import Example, ExampleReader
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.losses import LossFunction, mean_square
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.run import make_reader
from hv15.train.step_batches import StepBatches
from tests.train.world import metrics, run, settings, tiny_dit, tiny_stores, untimed

pytestmark = pytest.mark.numeric


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[TrainingItem], Stores]:
    return tiny_stores(tmp_path / "cache")


def trainer(folder: Path, batches: StepBatches, stores: Stores, *, max_grad_norm: float = 0.0) -> Trainer:
    """A trainer with plain gradient descent of rate 1, so that the weights show the gradients."""
    dit = tiny_dit()
    network = LoRANetwork(dit, rank=2, alpha=2, seed=0)
    with torch.no_grad():  # up starts at zero, which would hide the gradient of down
        for number, (name, parameter) in enumerate(sorted(network.named_parameters())):
            if "lora_up" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
    config = settings("i2v", i2v_prob=0.5, seed=3)
    return Trainer(
        settings=LoopSettings.from_settings(config.train, total_steps=1),
        optimizer_step=OptimizerStep(
            dit=dit,
            network=network,
            optimizer=torch.optim.SGD([{"params": list(network.parameters()), "lr": 1.0, "initial_lr": 1.0}]),
            device=torch.device("cpu"),
            seed=config.train.seed,
            max_grad_norm=max_grad_norm,
            loss=LossFunction(config.train),
        ),
        reader=make_reader(config, stores),
        batches=batches,
        accelerator=Accelerator(cpu=True),
        folder=folder,
        spec="spec",
    )


class OneByOne(BatchStream):
    """The same samples in the same order as a stream of equal batches, each in a batch of its own."""

    def __init__(self, whole: BatchStream, size: int) -> None:
        self.whole, self.size = whole, size
        self.first_epoch, self.batches_per_epoch = 0, whole.batches_per_epoch * size

    def __getitem__(self, index: int) -> MicroBatch:
        batch, place = self.whole[index // self.size], index % self.size
        return MicroBatch(batch.epoch, (batch.items[place],), batch.first_sample + place)


def test_accumulation_equals_the_big_batch(tmp_path: Path, data: Any) -> None:
    items, stores = data
    whole = BatchStream([item for item in items if item.shape == (3, 4, 6)], seed=1)
    big = trainer(tmp_path / "big", StepBatches(whole, 1), stores)
    small = trainer(tmp_path / "small", StepBatches(OneByOne(whole, 2), 2), stores)
    for each in (big, small):
        each.run()
    assert metrics_of(big)[0]["loss"] == pytest.approx(metrics_of(small)[0]["loss"], rel=1e-5)
    found, expected = (each.optimizer_step.network.state_dict() for each in (small, big))
    assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_the_gradient_is_that_of_the_mean_over_all_samples(tmp_path: Path, data: Any) -> None:
    """Batches of 2 and of 1 in one step: each sample counts a third, not each batch a half."""
    items, stores = data
    stream = BatchStream([*items[:2], items[3]], seed=2)
    batches = StepBatches(stream, 2)
    ours = trainer(tmp_path, batches, stores)
    dit, parameters = ours.optimizer_step.dit, ours.optimizer_step.parameters
    assert sorted(len(batch.items) for batch in batches.of_step(0)) == [1, 2]
    before = [parameter.detach().clone() for parameter in parameters]
    losses = torch.cat([mean_square(ours.reader(batch).error(dit)) for batch in batches.of_step(0)])
    gradients = torch.autograd.grad(losses.mean(), parameters, materialize_grads=True)
    ours.run()
    for old, new, gradient in zip(before, parameters, gradients, strict=True):
        assert_close(old - new, gradient, atol=1e-6, rtol=1e-4)
    record = metrics_of(ours)[0]
    assert record["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_clipping_bounds_the_step_and_reports_the_norm_before(tmp_path: Path, data: Any) -> None:
    items, stores = data
    free = trainer(tmp_path / "free", StepBatches(BatchStream(items, 2), 1), stores)
    clipped = trainer(tmp_path / "clipped", StepBatches(BatchStream(items, 2), 1), stores, max_grad_norm=0.01)
    parameters = clipped.optimizer_step.parameters
    before = torch.cat([p.detach().flatten().clone() for p in parameters])
    free.run()
    clipped.run()
    moved = (torch.cat([p.detach().flatten() for p in parameters]) - before).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert metrics_of(clipped)[0]["grad_norm"] == pytest.approx(metrics_of(free)[0]["grad_norm"], rel=1e-5)
    assert metrics_of(clipped)[0]["clip_factor"] == pytest.approx(0.01 / metrics_of(free)[0]["grad_norm"], rel=1e-4)
    assert metrics_of(free)[0]["clip_factor"] == 1.0
    assert metrics_of(free)[0]["grad_norm"] > 0.01


def test_gradient_checkpointing_changes_no_number(tmp_path: Path) -> None:
    """Dropout included: the recomputation must draw the same masks."""
    dropouts = {"network_dropout": 0.2, "rank_dropout": 0.1, "module_dropout": 0.1, "max_train_steps": 3}
    for name, on in (("on", True), ("off", False)):
        run(tmp_path / name, settings(gradient_checkpointing=on, **dropouts))
    assert untimed(metrics(tmp_path / "on")) == untimed(metrics(tmp_path / "off"))


def test_dropout_differs_from_batch_to_batch_but_not_from_run_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seeds = LoRANetwork.set_step_seed, []

    def note(network: LoRANetwork, seed: int) -> None:
        seeds.append(seed)
        real(network, seed)

    monkeypatch.setattr(LoRANetwork, "set_step_seed", note)
    for name, dropout in (("a", 0.5), ("b", 0.5), ("without", 0.0)):
        run(tmp_path / name, settings(max_train_steps=3, gradient_accumulation_steps=2, network_dropout=dropout))
    losses = {name: [record["loss"] for record in metrics(tmp_path / name)] for name in ("a", "b", "without")}
    assert losses["a"] == losses["b"] != losses["without"]
    assert len(set(seeds[:6])) == 6
    assert seeds[:6] == seeds[6:12]


def test_the_loss_falls_and_not_by_chance(tmp_path: Path) -> None:
    """Against the same training with a rate of nearly zero: the same noise, the same sigmas, a frozen LoRA."""
    for name, rate in (("learning", 2e-2), ("frozen", 1e-12)):
        run(tmp_path / name, settings(max_train_steps=30, learning_rate=rate, network_dim=8, network_alpha=8))
    learning, frozen = ([record["loss"] for record in metrics(tmp_path / name)] for name in ("learning", "frozen"))
    assert learning[0] == frozen[0]
    assert sum(learning[-10:]) < 0.8 * sum(frozen[-10:])
    summary = json.loads((tmp_path / "learning" / "train" / "summary.json").read_text())
    assert summary["loss_last"] < 0.8 * summary["loss_first"]


def test_a_line_holds_what_is_promised(tmp_path: Path) -> None:
    config = settings(max_train_steps=5, gradient_accumulation_steps=2, lr_scheduler="linear", lr_warmup_steps=0.4)
    run(tmp_path, config)
    records = metrics(tmp_path)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["epoch"] for record in records] == [0.6667, 1.3333, 2.0, 2.6667, 3.3333]
    assert [record["lr"] for record in records] == pytest.approx([0.005, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])
    promised = {"loss", "loss_by_sigma", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait_s"}
    for record in records:
        assert record.keys() >= promised | {"memory", "memory_peak", "time"}
        assert record["samples_per_s"] > 0
        assert len(record["loss_by_sigma"]) == 10
    assert metrics(tmp_path, "start")[0]["total_steps"] == 5


def test_checkpoints_appear_where_they_are_due_and_old_ones_go(tmp_path: Path) -> None:
    options = {"save_every_n_steps": 2, "save_last_n_steps": 2, "save_every_n_epochs": 1, "save_last_n_epochs": 1}
    output = run(tmp_path, settings(max_train_steps=9, **options))  # three batches an epoch
    folder = tmp_path / "train" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "lora-epoch0003.safetensors",
        "lora-step000006.safetensors",
        "lora-step000008.safetensors",
    ]
    written = [record["path"] for record in metrics(tmp_path, "checkpoint")]
    assert len(written) == 7
    short = run(tmp_path / "short", settings(max_train_steps=6, **options))
    assert tensors(short).keys() == tensors(output).keys()
    assert_equal(tensors(short), tensors(folder / "lora-step000006.safetensors"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Example, "prediction", fail)
    with pytest.raises(UserError, match="out of memory in training") as caught:
        run(tmp_path, settings())
    assert "hv15 plan" in caught.value.hint


def test_other_errors_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ExampleReader, "__call__", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path, settings())


def test_examples_are_pinned_where_they_are_read_if_a_gpu_trains(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for a GPU: on the CPU nothing can be pinned, and nothing is."""
    items, stores = data
    ours = trainer(tmp_path, StepBatches(BatchStream(items, 1), 1), stores)
    monkeypatch.setattr(Example, "pinned", lambda example: "pinned")
    task = (0, ours.batches.stream[0])
    assert isinstance(ours._read(task)[1], Example)
    ours.optimizer_step.device = torch.device("cuda")
    assert ours._read(task) == (0, "pinned")


def test_a_broken_item_is_named(tmp_path: Path, data: Any) -> None:
    items, stores = data
    stores.latents.path(items[1].clip).write_bytes(b"torn")
    with pytest.raises(UserError, match=items[1].clip):
        run(tmp_path, settings(), data=data)


@pytest.mark.slow
def test_the_optimizers_learn(tmp_path: Path) -> None:
    for name, rate in (("AdamW8bit", 1e-2), ("Muon", 1e-2)):
        config = settings(optimizer_type=name, learning_rate=rate, max_train_steps=30, network_dim=8, network_alpha=8)
        run(tmp_path / name, config)
        losses = [record["loss"] for record in metrics(tmp_path / name)]
        assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def metrics_of(each: Trainer) -> list[dict[str, Any]]:
    lines = (each.folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "step"]


def tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_two_trainings_with_one_base_do_not_meet(tmp_path: Path) -> None:
    """The model is left unchanged: no LoRA of the first run stays on it."""
    dit, config = tiny_dit(), settings(max_train_steps=3)
    first, second = (run(tmp_path / name, config, dit=dit) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
