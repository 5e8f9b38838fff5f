"""What a GPU would punish, at full size on a GPU without data: mixed devices, waiting for the device, hidden copies.

The width, the tokens and the layers of one block are the real ones; three blocks stand for 54 (one test runs all).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hv15.cache.batches import BatchStream, TrainingItem
from hv15.cache.latents import encode_clips
from hv15.config import Settings
from hv15.models import DiT, DiTConfig
from hv15.models.dit_files import is_block_linear
from hv15.models.quantised import replace_linears
from hv15.models.ready import set_up
from hv15.models.vae import VAE
from hv15.models.vae_pixels import to_bytes
from hv15.plan.transformer import Work, _condition, _examples
from hv15.sample.denoise import denoise
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.optimizers import make_optimizer
from hv15.train.run import make_network
from hv15.train.steps import StepPlan
from tests.fake_gpu import Copies, FakeGPU

WORK = Work(samples=1, latent=(4, 30, 52), text_tokens=200, i2v=False)  # 480p, 13 frames
MOVES = {"train.examples.<lambda>", "train.examples.to", "models.condition.<lambda>"}
"""A batch comes to the device."""
SWAP = {"models.transfers.begin"}
"""Blocks and kept activations."""
OPTIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "plain": ({}, set()),
    "kept activations": ({"gradient_checkpointing": False}, set()),
    "swap": ({"blocks_to_swap": 1}, SWAP),
    "fp8": ({"quantize": "fp8"}, set()),
    "int8": ({"quantize": "int8"}, set()),
    "split attention": ({"split_attn": True}, set()),
}


def settings(section: str, options: dict[str, Any]) -> Settings:
    base = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    train = {"optimizer_type": "AdamW", "network_dim": 16, "network_alpha": 16}
    return Settings.model_validate(
        {**base, "train": train} | {section: {**(train if section == "train" else {}), **options}}
    )


def ready(gpu: FakeGPU, section: Any, blocks: int = 3) -> DiT:
    """The real width on the fake GPU, set up as the settings want it."""
    with torch.device("meta"):
        dit = DiT(DiTConfig(num_blocks=blocks)).to(torch.bfloat16).requires_grad_(False)
    if section.quantize != "none":
        replace_linears(dit, section.quantize, is_block_linear)
    gpu.put(dit)
    with gpu:
        set_up(dit, section, gpu.device)
    return dit


def train_step(gpu: FakeGPU, asked: Settings, work: Work, blocks: int = 3) -> set[str]:
    """An optimizer step of the real trainer; the copies between host and device."""
    dit = ready(gpu, asked.train, blocks)
    with gpu:
        network = make_network(asked, dit)
        trainer = Trainer(
            settings=LoopSettings(seed=0, total_steps=1),
            dit=dit,
            network=network,
            optimizer=make_optimizer(asked.train.optimizer_type, network.parameter_groups(1e-4), {}),
            reader=None,  # type: ignore[arg-type]
            plan=StepPlan(BatchStream([TrainingItem("clip", "caption", work.latent)], 0)),
            accelerator=SimpleNamespace(device=gpu.device, num_processes=1),  # type: ignore[arg-type]
            folder=Path(),
            spec="",
            save_lora=lambda path, step: None,
        )
        with Copies() as copies:
            launched = trainer.compute(0, _examples(dit.config, work))
        assert launched.numbers.device.type == "fakegpu"
    return copies.seen


@pytest.mark.parametrize("task", ["t2v", "i2v"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_step(name: str, task: str):
    options, allowed = OPTIONS[name]
    copies = train_step(FakeGPU(), settings("train", options), replace(WORK, i2v=task == "i2v"))
    assert copies <= MOVES | allowed
    assert copies & MOVES


@pytest.mark.parametrize("task", ["t2v", "i2v"])
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "kept activations"])
def test_sampling(name: str, task: str, monkeypatch: pytest.MonkeyPatch):
    """Nothing is copied while it runs but blocks that are swapped; the one look at the result comes at its end."""
    options, allowed = OPTIONS[name]
    work, gpu = replace(WORK, i2v=task == "i2v"), FakeGPU()
    dit = ready(gpu, settings("sample", options).sample)
    with gpu:
        cond = _condition(dit.config, work).to(gpu.device)
        noise = torch.zeros(1, 32, *work.latent).to(gpu.device)
        first = torch.zeros(1, 32, 1, *work.latent[1:]).to(gpu.device) if work.i2v else None
        looked: list[bool] = []
        monkeypatch.setattr(torch, "isfinite", lambda tensor: SimpleNamespace(all=lambda: not looked.append(True)))
        with Copies() as copies:
            sample = denoise(dit, noise, cond, cond, torch.tensor([1.0, 0.0]), 6.0, first)
        assert sample.device.type == "fakegpu"
    assert copies.seen <= allowed
    assert looked == [True]


@pytest.mark.parametrize("patch_conv", [False, True])
@pytest.mark.parametrize("tile_size", [0, 256])
def test_encoding_and_decoding(tile_size: int, patch_conv: bool):
    """480p, as bytes in and bytes out."""
    gpu = FakeGPU()
    with torch.device("meta"):
        vae = VAE().half().requires_grad_(False)
    vae.patch_conv = patch_conv
    gpu.put(vae)
    with gpu, torch.no_grad(), Copies() as copies:
        clips = gpu.empty(1, 5, 480, 848, 3, dtype=torch.uint8)
        latents = encode_clips(vae, clips, tile_size, 0.25)
        assert to_bytes(vae.decode(latents, tile_size=tile_size)).shape == (1, 5, 480, 848, 3)
    assert copies.seen == set()


def test_the_fake_gpu_sees_what_it_is_for():
    """Mixed devices and a look at a value raise; a copy is seen."""
    gpu = FakeGPU()
    with gpu:
        on_gpu, on_cpu = gpu.empty(2, 2), torch.zeros(2, 2)
        with pytest.raises(Exception, match="device"):
            on_gpu @ on_cpu
        with pytest.raises(Exception, match=r"."):
            bool(on_gpu.sum() > 0)
        with Copies() as copies:
            on_cpu.to(gpu.device)
        assert copies.seen == {"?"}


@pytest.mark.slow
def test_all_blocks_of_the_real_model():
    assert train_step(FakeGPU(), settings("train", {"blocks_to_swap": 51}), WORK, blocks=54) <= MOVES | SWAP
