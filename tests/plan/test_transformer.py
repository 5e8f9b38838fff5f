"""Planned memory of training and sampling against steps that are really done on the CPU, for each way with memory."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hv15.lora import save_lora
from hv15.memory import WEIGHTS
from hv15.models import DiTConfig
from hv15.models.dit import DiT
from hv15.models.weights import offload
from hv15.models.weights.transfers import HostTransfers
from hv15.plan import meter as meter_module
from hv15.plan.metered_steps import AVERAGE, LORA, PassSize, run_denoising, run_training
from hv15.plan.stretches import OPTIMIZER
from hv15.plan.transformer import BASE_LORAS, denoising, training
from hv15.plan.work import ELEMENTWISE, WorkByKind
from hv15.sample.denoise import denoise
from hv15.selftest.training import random_condition, random_example, ready
from hv15.selftest.training import training as trained_lora
from tests.lora.samples import random_lora
from tests.plan.steps import (  # noqa: F401  (fixtures)
    SIZE,
    SMALL,
    bitsandbytes_is_imported,
    host_memory_is_elsewhere,
    of_steps,
    settings,
)

AT = ("model", "cpu")
TRAINING: dict[str, dict[str, Any]] = {
    "plain": {},
    "kept activations": {"gradient_checkpointing": False},
    "offload": {"gradient_checkpointing_cpu_offload": True},
    "swap": {"blocks_to_swap": 1},
    "swap and offload": {"blocks_to_swap": 1, "gradient_checkpointing_cpu_offload": True},
    "fp8": {"quantize": "fp8"},
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4"},
    "split attention": {"split_attn": True},
    "accumulation": {"gradient_accumulation_steps": 3},
    "Muon": {"optimizer_type": "Muon"},
    "moving average": {"ema_decay": 0.9},
    "dora": {"network_type": "dora"},
    "loha": {"network_type": "loha"},
    "lokr": {"network_type": "lokr", "lokr_factor": 4},
    "by pattern": {"network_dim_patterns": {"img_attn": 8, "txt_mlp": 2}, "layers": "no_modulation"},
}


BY_WINDOWS = [
    (("plain",), False),
    (("kept activations", "accumulation", "moving average"), True),
    (("dora", "fp8"), True),
]
"""Few tokens go through torch's own checkpointing, many in windows."""
EACH = [((name,), True) for name in TRAINING if ((name,), True) not in BY_WINDOWS]
EACH += [(("loha", "int8"), True), (("lokr", "nf4"), True)]
EACH += [(("Muon", "split attention"), True), (("accumulation", "moving average"), True)]


@pytest.mark.parametrize(
    ("names", "windows"),
    [
        *BY_WINDOWS,
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (*EACH, (("fp8",), False))),
    ],
    ids=str,
)
def test_a_training_step_takes_what_it_takes_on_the_cpu(
    names: tuple[str, ...], windows: bool, monkeypatch: pytest.MonkeyPatch
):
    """Forward, backward, clipping and the optimizer's step, of the real trainer."""
    if windows:
        monkeypatch.setattr(DiT, "most_tokens", 80)
    asked = settings(dict(ChainMap(*(TRAINING[name] for name in names))))
    real = run_training(asked, SMALL, torch.float32, SIZE, device="cpu")
    planned = run_training(asked, SMALL, torch.float32, SIZE, device="meta")
    assert of_steps(planned) == pytest.approx(of_steps(real), rel=0.001)


@pytest.mark.slow
def test_a_pass_without_the_lora_is_counted_for_its_share() -> None:
    """It takes no memory beyond that of a step with a LoRA, but for its prediction, and blocks come once more."""
    asked = settings(TRAINING["accumulation"])
    shares, config = (0.0, 0.25, 1.0), replace(SMALL, num_blocks=2)
    costs = [training(asked, config, torch.float32, replace(SIZE, prior_share=share), gpu=False) for share in shares]
    plain, some, all_ = (cost.flops for cost in costs)
    assert some - plain == pytest.approx(0.25 * (all_ - plain), rel=0.01)
    with_lora = training(asked, config, torch.float32, SIZE, validation=SIZE, gpu=False)
    forward = sum(each.flops for each in with_lora.validation.values())
    assert 0.9 * forward < all_ - plain < forward
    assert costs[2].peak < 1.02 * costs[0].peak
    real = run_training(asked, config, torch.float32, replace(SIZE, prior_share=1.0), device="cpu")
    planned = run_training(asked, config, torch.float32, replace(SIZE, prior_share=1.0), device="meta")
    assert of_steps(planned) == pytest.approx(of_steps(real), rel=0.001)
    copied = [
        training(settings(TRAINING["swap"]), SMALL, torch.float32, replace(SIZE, prior_share=share)).copied
        for share in shares[:2]
    ]
    assert copied == pytest.approx([copied[0], copied[0] * 1.125], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latent", "name"),
    [
        ((1, 6, 8), "plain"),
        ((40, 6, 8), "swap"),
        ((1, 6, 8), "swap"),
        ((40, 6, 8), "plain"),
    ],
)
def test_measuring_a_clip_takes_what_it_takes_on_the_cpu(name: str, latent: tuple[int, int, int]):
    """A small one, which takes less than the step, and one that is many times as large as the step's."""
    asked, size = settings(TRAINING[name]), replace(SIZE, latent=latent)
    real, planned = (
        run_training(asked, SMALL, torch.float32, SIZE, validation=size, device=device) for device in ("cpu", "meta")
    )
    assert of_steps(planned) == pytest.approx(of_steps(real), rel=0.001)
    without = run_training(asked, SMALL, torch.float32, SIZE)
    assert planned.work == without.work
    assert (of_steps(planned) > of_steps(without)) == (latent[0] > SIZE.latent[0])


@pytest.mark.parametrize(
    ("options", "task"),
    [
        ({}, "t2v"),
        ({}, "i2v"),
        ({"blocks_to_swap": 1}, "t2v"),
        pytest.param({"quantize": "fp8"}, "t2v", marks=pytest.mark.slow),
        pytest.param({"split_attn": True}, "t2v", marks=pytest.mark.slow),
    ],
)
def test_a_denoising_step_takes_what_it_takes_on_the_cpu(options: dict[str, Any], task: str):
    asked, size = settings(sample=options), replace(SIZE, i2v=task == "i2v")
    real, planned = (
        run_denoising(asked, SMALL, torch.float32, size, guided=True, device=device) for device in ("cpu", "meta")
    )
    assert of_steps(planned) == pytest.approx(of_steps(real), rel=0.001)


@pytest.mark.parametrize(
    "kind", [pytest.param("dora", marks=pytest.mark.slow), "loha", pytest.param("lokr", marks=pytest.mark.slow)]
)
def test_a_denoising_step_with_each_kind_of_lora(kind: str):
    asked = settings(TRAINING[kind])
    real, planned = (
        run_denoising(asked, SMALL, torch.float32, SIZE, guided=True, device=device) for device in ("cpu", "meta")
    )
    assert of_steps(planned) == pytest.approx(of_steps(real), rel=0.001)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("swap and offload", "kept activations", "fp8", "dora", "moving average")
        ),
    ],
)
def test_many_blocks_are_continued_from_few_to_the_byte(name: str, monkeypatch: pytest.MonkeyPatch):
    if name != "plain":
        monkeypatch.setattr(DiT, "most_tokens", 80)
    asked, config = settings(TRAINING[name]), replace(SMALL, num_blocks=5)
    larger = replace(SIZE, latent=(9, 6, 8))  # measured between steps
    whole = run_training(asked, config, torch.float32, SIZE, validation=larger, gpu=True)
    planned = training(asked, config, torch.float32, SIZE, validation=larger, gpu=True)
    assert (planned.peak, planned.parts) == (
        of_steps(whole),
        max(whole.moments.values(), key=lambda parts: sum(parts.values())),
    )
    check_work(planned.validation, whole.validation, swapped="swap" in name)
    passes = min(asked.train.gradient_accumulation_steps, 2)
    twice = {kind: work.plus(work, passes - 1) for kind, work in planned.work.items()}
    check_work(twice, whole.work, swapped="swap" in name)


@pytest.mark.slow
def test_a_lora_that_differs_from_block_to_block() -> None:
    """What it keeps is exact; what a block takes while it computes is that of the largest."""
    patterns = {r"blocks\.4\.": 8, "img_attn": 2}
    asked = settings({"layer_blocks": [2, 4], "network_dim_patterns": patterns, "optimizer_args": {"foreach": True}})
    config = replace(SMALL, num_blocks=6)
    whole = run_training(asked, config, torch.float32, SIZE, gpu=True)
    planned = training(asked, config, torch.float32, SIZE, gpu=True)
    most = max(whole.moments.values(), key=lambda parts: sum(parts.values()))
    for part in (LORA, OPTIMIZER):
        assert planned.parts[part] == pytest.approx(most[part], rel=0.02)  # the optimizer's counters, and alphas
    assert of_steps(whole) <= planned.peak < 1.1 * of_steps(whole)


def test_base_loras_take_their_size(tmp_path: Path) -> None:
    lora = random_lora({"double_blocks.0.img_attn_q": (64, 64), "double_blocks.2.img_mlp.fc1": (256, 64)}, rank=4)
    save_lora(tmp_path / "base.safetensors", lora, {})
    paths = [{"path": str(tmp_path / "base.safetensors"), "multiplier": strength} for strength in (1.0, 0.5)]
    plain, beside = (training(settings({"base_weights": base}), SMALL, torch.bfloat16, SIZE) for base in ([], paths))
    size = sum(tensor.numel() * 2 for tensor in lora.values() if tensor.ndim)
    assert beside.parts == {**plain.parts, BASE_LORAS: 2 * size}


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"blocks_to_swap": 5}, {"quantize": "nf4"}))],
)
def test_sampling_with_many_blocks_is_continued_to_the_byte(options: dict[str, Any]):
    asked, config = settings(sample=options), replace(SMALL, num_blocks=8)
    whole = run_denoising(asked, config, torch.float32, SIZE, guided=True, gpu=True)
    planned = denoising(asked, config, torch.float32, SIZE, guided=True, gpu=True)
    assert (planned.peak, planned.parts) == (
        of_steps(whole),
        max(whole.moments.values(), key=lambda parts: sum(parts.values())),
    )
    check_work(planned.work, whole.work, swapped="blocks_to_swap" in options)


def check_work(planned: WorkByKind, whole: WorkByKind, *, swapped: bool) -> None:
    """A model whose blocks are swapped moves them when it is set up, which is no part of a step."""
    assert planned.keys() == whole.keys()
    for kind, work in planned.items():
        if swapped and kind == ELEMENTWISE:
            assert (work.launches, work.flops) == (pytest.approx(whole[kind].launches, rel=0.02), 0)
        else:
            assert work == whole[kind]


@pytest.mark.slow
def test_the_machine_holds_what_waits():
    """Every block but those that stay, the inputs of all blocks, a moving average with its last step."""
    config = replace(SMALL, num_blocks=4)
    plain, swapped = (
        denoising(settings(sample={"blocks_to_swap": count}), config, torch.float32, SIZE, guided=False)
        for count in (0, 2)
    )
    away = training(settings({"gradient_checkpointing_cpu_offload": True}), config, torch.float32, SIZE)
    assert plain.host == 0
    assert swapped.host == pytest.approx(4 / 2 * (plain.parts[WEIGHTS] - swapped.parts[WEIGHTS]), rel=0.02)
    assert away.host == 4 * 3 * 6 * 8 * 64 * 4
    here, there = (training(settings({"ema_decay": 0.9, "ema_device": at}), config, torch.float32, SIZE) for at in AT)
    assert (here.host, there.host) == (0, 2 * here.parts[AVERAGE])
    assert here.parts[AVERAGE] == pytest.approx(here.parts[LORA], rel=0.01)  # which has alphas, too
    assert there.peak < here.peak


@pytest.mark.parametrize(
    ("section", "options", "guidance"),
    [
        pytest.param("train", {"blocks_to_swap": 2}, 0.0, marks=pytest.mark.slow),
        ("train", {"gradient_checkpointing_cpu_offload": True}, 0.0),
        ("sample", {"blocks_to_swap": 2}, 1.0),
        ("sample", {"blocks_to_swap": 2}, 6.0),
    ],
)
def test_what_is_copied_is_what_block_swap_and_offload_copy(
    section: str, options: dict[str, Any], guidance: float, monkeypatch: pytest.MonkeyPatch
):
    """In a step that follows another one; guidance by two passes copies each block twice."""
    config, size = replace(SMALL, num_blocks=4), PassSize(1, (3, 6, 8), 12, False)
    tokens = 3 * 6 * 8 * config.hidden_size * 4  # bytes of a block's image tokens
    monkeypatch.setattr(offload, "LEAST", tokens)
    begin, copied = HostTransfers.begin, 0

    def counted(self: HostTransfers, target: Tensor, source: Tensor) -> None:
        nonlocal copied
        copied += source.nbytes
        begin(self, target, source)

    monkeypatch.setattr(HostTransfers, "begin", counted)
    torch.manual_seed(0)
    dit, cpu, asked = DiT(config).requires_grad_(False), torch.device("cpu"), settings(**{section: options})
    if section == "train":
        planned = training(asked, config, torch.float32, size)
        with trained_lora(dit, cpu, options) as made:
            example = random_example(config, size.latent, [12])
            made.run(example)
            copied = 0
            made.run(example)
    else:
        planned = denoising(asked, config, torch.float32, size, guided=guidance > 1)
        cond = random_condition(config, [12])
        noise, sigmas = torch.zeros(1, config.latent_channels, *size.latent), torch.tensor([1.0, 0.5])
        with ready(dit, asked.sample, cpu):
            for _ in range(3):
                copied = 0
                denoise(dit, noise, cond, cond, sigmas, guidance)
    assert planned.copied == copied > 0


@pytest.mark.slow
def test_known_shapes_are_not_worked_out_again(monkeypatch: pytest.MonkeyPatch):
    """What makes planning quick changes no number."""
    asked = settings({"quantize": "fp8"})
    config = replace(SMALL, num_blocks=1)
    quick = run_training(asked, config, torch.float32, SIZE)
    monkeypatch.setattr(meter_module, "_without_data", lambda func, args, kwargs: (func(*args, **kwargs), None))
    slow = run_training(asked, config, torch.float32, SIZE)
    assert (quick.peak, quick.parts, quick.moments) == (slow.peak, slow.parts, slow.moments)
    assert quick.work == slow.work


def test_operations_are_those_of_the_formula():
    """2 for each weight and token on the way forward, again for the block made again, and for its input's gradient."""
    config = DiTConfig(num_blocks=4)
    tokens = 20 * 30 * 40
    planned = denoising(
        settings(), config, torch.bfloat16, PassSize(1, (20, 30, 40), 1, False), guided=False, with_lora=False
    )
    linears = 4 * (4 + 2 * config.mlp_ratio) * config.hidden_size**2 * 2 * tokens
    attention = 4 * 4 * tokens**2 * config.hidden_size
    assert planned.flops == pytest.approx(linears + attention, rel=0.01)
