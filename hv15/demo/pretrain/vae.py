"""The demo's VAE, trained from nothing in three stages: single frames, clips, then the decoder alone on clips.

A fixed noise on the latents takes the place of a learnt variance: with that and its KL term the small network diverges.
Latents are divided by their root mean square while the encoder learns; in the end its weights take that over, exactly.
Each convolution's rate falls with its inputs, since Adam moves them all alike; residual branches begin as nothing.
Every step's clips and noise are named by stage and step, so a stage goes on after a kill as if it had never stopped.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hv15.atomic import atomic_path
from hv15.demo import world
from hv15.models.latents import SCALING_FACTOR
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import CausalConv3d
from hv15.progress import Progress
from hv15.train.metrics import MetricsFile
from hv15.train.random import generator, seed_for
from hv15.train.schedules import Schedule, lr_factor
from hv15.train.signals import EXIT_RESUMABLE, Requests
from hv15.train.state import Position, StateFolder, locked

log = logging.getLogger(__name__)

SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)
NOISE = 0.05
_SCHEDULE: Schedule = "cosine"


@dataclass(frozen=True)
class VaeStage:
    """One stage: what it shows, what it trains, for how long."""

    name: str
    steps: int
    batch: int
    frames: int
    rate: float
    """Peak of a one-cycle schedule: linear warm-up over `warmup` steps, then a cosine to zero."""
    warmup: int
    encoder: bool = True
    """Whether the encoder is trained; a frozen one leaves latents that were made with it valid."""
    wild: float = 0.05
    """How often colours are none that has a name, and how often the motion is none."""
    crop: int = world.SIZE
    """Side of the square that is shown: a smaller one, around the shape, has more edges in it for the same work."""
    noise: float = NOISE
    """Standard deviation of the noise on unit-variance latents."""
    state_every: int = 100


STAGES = (
    VaeStage("images", steps=900, batch=16, frames=1, rate=2e-3, warmup=100, wild=0.2),
    VaeStage("clips", steps=1700, batch=4, frames=9, rate=4e-3, warmup=50, crop=48),
    VaeStage("decoder", steps=2400, batch=4, frames=9, rate=2e-3, warmup=50, encoder=False, noise=0.1),
)


def new_vae(seed: int) -> VAE:
    """Return an untrained VAE: layers keep the variance of their inputs, residual branches add nothing yet."""
    vae = VAE(SIZES)
    for name, parameter in vae.named_parameters():
        if ".conv2." in name or ".attn_1.proj_out." in name or name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif not name.endswith("gamma"):
            gain = 0.3 if name.startswith("decoder.conv_out") else 1.0
            scale = gain / math.sqrt(_inputs(parameter))
            parameter.data = scale * torch.randn(parameter.shape, generator=generator(seed, f"vae {name}", 0))
    return vae


def _inputs(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])


def _groups(vae: VAE, rate: float) -> list[dict[str, Any]]:
    """Parameter groups with their peak rates; what has few inputs, as biases have, takes half the stage's."""
    return [
        {"params": [parameter], "peak": rate * min(0.5, 100 / _inputs(parameter))}
        for parameter in vae.parameters()
        if parameter.requires_grad
    ]


def look_at_newest_frame(vae: VAE) -> None:
    """Begin clips with what was learnt of images: each convolution looks at its newest frame alone.

    An image taught the sum of the three temporal taps only; spread over moving frames it would smear.
    """
    for module in vae.modules():
        if isinstance(module, CausalConv3d):
            weight = module.conv.weight.data
            weight[:, :, 2] = weight.sum(2)
            weight[:, :, :2] = 0


def train_vae_stage(stage: VaeStage, folder: Path, *, start: Path | None, seed: int = 0) -> Path:
    """Train one stage, or go on where it was stopped; return its weights, `<folder>/<stage>.safetensors`, fp32.

    Args:
        start: weights of the stage before; None begins from nothing.

    Raises:
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target = folder / f"{stage.name}.safetensors"
    work = folder / stage.name
    with locked(work):
        vae = new_vae(seed)
        if start is not None:
            vae.load_state_dict(load_file(start))
            if stage.name == "clips":
                look_at_newest_frame(vae)
        vae.encoder.requires_grad_(stage.encoder)
        _run(stage, vae, work, f"{stage} {seed}", seed)
        if stage.encoder:
            standardise(vae, batch_of(replace(stage, batch=256 // stage.frames, crop=world.SIZE), -1, seed))
        with atomic_path(target) as temporary:
            save_file(vae.state_dict(), temporary)
    return target


def _run(stage: VaeStage, vae: VAE, work: Path, spec: str, seed: int) -> None:
    parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(_groups(vae, stage.rate), betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    states = StateFolder(work / "state", spec)
    begin, offset = 0, 0
    if (saved := states.load_latest()) is not None:
        vae.load_state_dict(saved.lora)
        optimizer.load_state_dict(saved.optimizer)
        begin, offset = saved.position.step, saved.position.metrics_offset
    with (
        MetricsFile(work / "metrics.jsonl", offset) as metrics,
        Progress(stage.steps, stage.name, unit="steps", start=begin) as progress,
        Requests() as requests,
    ):
        for step in range(begin, stage.steps):
            factor = lr_factor(step, stage.steps, schedule=_SCHEDULE, warmup=stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            pixels = batch_of(stage, step, seed)
            noise = generator(seed, f"vae noise {stage.name}", step)
            loss, size = reconstruction(vae, pixels, noise, stage)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            error = loss.item()
            decibels = float(10 * np.log10(4 / error))
            metrics.write(
                "step",
                step=step + 1,
                loss=error,
                psnr=round(decibels, 3),
                latent_rms=size.item(),
                grad_norm=norm.item(),
                lr=factor * stage.rate,
            )
            progress.advance(note=f"{decibels:.1f} dB")
            stop, save = requests.take()
            if stop or save or step + 1 == stage.steps or (step + 1) % stage.state_every == 0:
                position = Position(step + 1, 0.0, metrics.offset, spec, 1)
                states.save(position, vae.state_dict(), optimizer.state_dict())
            if stop and step + 1 < stage.steps:
                log.warning("saved at step %d; run the same command to go on", step + 1)
                raise SystemExit(EXIT_RESUMABLE)


def reconstruction(vae: VAE, pixels: Tensor, noise: torch.Generator, stage: VaeStage) -> tuple[Tensor, Tensor]:
    """Return the squared error of what the decoder makes of noisy latents, and the scaled latents' root mean square."""
    with torch.set_grad_enabled(stage.encoder):
        latents = vae.encode(pixels)
        size = SCALING_FACTOR * latents.square().mean().sqrt()
        if stage.encoder:
            latents = latents / size
    shown = latents + stage.noise * torch.randn(latents.shape, generator=noise)
    return (vae.decode(shown) - pixels).square().mean(), size.detach()


@torch.no_grad()
def standardise(vae: VAE, pixels: Tensor) -> None:
    """Scale the encoder so that the scaled latents of these clips have a mean square of 1.

    Its norms undo every scale, so its whole residual stream can be scaled: what feeds it, and each branch's last layer.
    """
    factor = (1 / (SCALING_FACTOR * vae.encode(pixels).square().mean().sqrt())).item()
    for name, parameter in vae.encoder.named_parameters():
        ends_branch = ".conv2." in name or ".proj_out." in name or name.startswith(("conv_in.", "conv_out."))
        if ends_branch or name.endswith("downsample.conv.conv.bias"):  # downsampling itself is linear
            parameter.mul_(factor)


def batch_of(stage: VaeStage, step: int, seed: int) -> Tensor:
    """Return the clips of a step, [B, 3, F, 64, 64] in [-1, 1]."""
    first = seed_for(seed, f"vae clips {stage.name}", step) >> 16
    clips = [world.wild(first + place, stage.frames, stage.crop, stage.wild) for place in range(stage.batch)]
    return to_pixels(np.stack(clips))


def to_pixels(clips: np.ndarray) -> Tensor:
    """uint8 [B, F, H, W, 3] -> fp32 [B, 3, F, H, W] in [-1, 1]."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
