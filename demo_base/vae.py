"""The demo's VAE, trained from nothing: the encoder to say the latents that the basis gives, the decoder to undo them.

Each convolution's rate falls with its inputs, since Adam moves all weights alike. Residual branches begin as nothing.
Every step's clips and noise are named by stage and step, so a stage goes on after a kill as if it had never stopped.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_base.basis import Basis, to_pixels
from demo_base.closed_form import fit_decoder, fit_encoder
from hv15.atomic import atomic_path
from hv15.demo import world
from hv15.models.latents import SCALING_FACTOR
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import Stream
from hv15.models.vae_coders import Decoder, Encoder
from hv15.progress import Progress
from hv15.records.metrics import MetricsRecord
from hv15.train.metrics import MetricsFile
from hv15.train.random import generator, seed_for
from hv15.train.schedules import lr_factor
from hv15.train.signals import Requests, Stopped
from hv15.train.state import Position, StateFolder, locked

log = logging.getLogger(__name__)

SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)


@dataclass(frozen=True, kw_only=True)
class VaeStep(MetricsRecord):
    """One step of one half, in its metrics.jsonl."""

    kind = "vae_step"
    loss: float
    psnr: float
    """Decibels."""
    grad_norm: float
    lr: float


@dataclass(frozen=True)
class VaeStage:
    """How one half of the VAE is trained."""

    name: Literal["encoder", "decoder"]
    steps: int
    batch: int
    rate: float
    """Peak of a one-cycle schedule: linear warm-up over `warmup` steps, then a cosine to zero."""
    warmup: int = 50
    wild: float = 0.1
    """How often colours are none that has a name, and how often the motion is none."""
    crop: int = 48
    """Side of the square that is shown: a smaller one, around the shape, has more edges in it for the same work."""
    noise: float = 0.0
    """Standard deviation of the noise on the decoder's latents, which are never exact."""
    state_every: int = 100


STAGES = {
    "encoder": VaeStage("encoder", steps=1500, batch=4, rate=3e-4),
    "decoder": VaeStage("decoder", steps=300, batch=4, rate=3e-5, noise=0.1),
}
FITTED = {"encoder": 500, "decoder": 400}
"""Clips that the beginnings are fitted to."""


def new_vae(seed: int) -> VAE:
    """Return an untrained VAE: layers keep the variance of their inputs, residual branches add nothing yet.

    A constant runs beside the signal from the first layers on: without it norms would take grey's size, 0, from it.
    """
    vae = VAE(SIZES)
    for name, parameter in vae.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator(seed, f"vae {name}", 0))
        if ".conv2." in name or ".attn_1.proj_out." in name:
            nn.init.zeros_(parameter)
        elif name.endswith("bias"):
            parameter.data = drawn if ".conv_in." in name else torch.zeros_like(drawn)
        elif not name.endswith("gamma"):
            gain = 0.3 if name.startswith("decoder.conv_out") else 1.0
            parameter.data = gain / math.sqrt(_inputs(parameter)) * drawn
    return vae


def _inputs(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])


def _groups(half: nn.Module, rate: float) -> list[dict[str, object]]:
    """Parameter groups with their peak rates; what has few inputs, as biases have, takes half the stage's."""
    return [
        {"params": [parameter], "peak": rate * min(0.5, 100 / _inputs(parameter))} for parameter in half.parameters()
    ]


def train_vae_stage(stage: VaeStage, basis: Basis, folder: Path, *, seed: int = 0) -> Path:
    """Train one half, or go on where it was stopped; return its weights, `<folder>/<stage>.safetensors`, fp32.

    Raises:
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target = folder / f"{stage.name}.safetensors"
    work = folder / stage.name
    with locked(work):
        half = getattr(new_vae(seed), stage.name)
        start = work / "start.safetensors"
        if not start.exists():
            begin(half, basis, stage, seed)
            with atomic_path(start) as temporary:
                save_file(half.state_dict(), temporary)
        half.load_state_dict(load_file(start))
        _run(stage, half, basis, work, f"{stage} {seed}", seed)
        with atomic_path(target) as temporary:
            save_file(half.state_dict(), temporary)
    return target


def begin(half: Encoder | Decoder, basis: Basis, stage: VaeStage, seed: int) -> None:
    """Fit a half in closed form: what gradients then begin from."""
    first = seed_for(seed, f"vae fit {stage.name}", 0) >> 16
    clips = [world.wild(first + number, wildness=stage.wild) for number in range(FITTED[stage.name])]
    pixels, draws = to_pixels(np.stack(clips)), generator(seed, f"vae fit {stage.name}", 1)
    latents = basis.encode(pixels)
    if isinstance(half, Encoder):
        fit_encoder(half, pixels, latents, draws)
    else:
        fit_decoder(half, latents + stage.noise * torch.randn(latents.shape, generator=draws), pixels, draws)


def _run(stage: VaeStage, half: Encoder | Decoder, basis: Basis, work: Path, spec: str, seed: int) -> None:
    parameters = list(half.parameters())
    optimizer = torch.optim.AdamW(_groups(half, stage.rate), betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    states = StateFolder(work / "state", spec)
    begin, offset = 0, 0
    if (saved := states.load_latest()) is not None:
        half.load_state_dict(saved.lora)
        optimizer.load_state_dict(saved.optimizer)
        begin, offset = saved.position.step, saved.position.metrics_offset
    with (
        MetricsFile(work / "metrics.jsonl", offset) as metrics,
        Progress(stage.steps, stage.name, unit="steps", start=begin) as progress,
        Requests() as requests,
    ):
        for step in range(begin, stage.steps):
            factor = lr_factor(step, stage.steps, schedule="cosine", warmup=stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            pixels = batch_of(stage, step, seed)
            noise = generator(seed, f"vae noise {stage.name}", step)
            loss, error = losses(half, basis.encode(pixels), pixels, stage.noise, noise)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decibels = float(10 * np.log10(4 / error.item()))
            metrics.write(
                VaeStep(
                    step=step + 1,
                    loss=loss.item(),
                    psnr=round(decibels, 3),
                    grad_norm=norm.item(),
                    lr=factor * stage.rate,
                )
            )
            progress.advance(note=f"{decibels:.1f} dB")
            stop, save = requests.take()
            if stop or save or step + 1 == stage.steps or (step + 1) % stage.state_every == 0:
                position = Position(step + 1, 0.0, metrics.offset, spec, 1)
                states.save(position, half.state_dict(), optimizer.state_dict())
            if stop and step + 1 < stage.steps:
                log.warning("saved at step %d; run the same command to go on", step + 1)
                raise Stopped(step + 1)


def losses(
    half: Encoder | Decoder, latents: Tensor, pixels: Tensor, spread: float, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a half's loss and its plain squared error: of scaled latents, or of pixels.

    The decoder's loss counts errors of the colour twice: the backgrounds are grey, and the shapes are small.
    """
    if isinstance(half, Encoder):
        said = run_half(half, pixels)[:, : SIZES.latent_channels]
        error = (SCALING_FACTOR * (said - latents)).square().mean()
        return error, error.detach()
    shown = latents + spread * torch.randn(latents.shape, generator=noise)
    difference = run_half(half, shown) - pixels
    error = difference.square().mean()
    return error + (difference - difference.mean(1, keepdim=True)).square().mean(), error.detach()


def run_half(half: Encoder | Decoder, x: Tensor) -> Tensor:
    """Run a half with gradients: the first frame, then all others."""
    stream = Stream(tracked=True, first=True, last=x.shape[2] == 1)
    results = [half(x[:, :, :1], stream)]
    if x.shape[2] > 1:
        stream.first, stream.last = False, True
        results.append(half(x[:, :, 1:], stream))
    return torch.cat(results, 2)


def batch_of(stage: VaeStage, step: int, seed: int) -> Tensor:
    """Return the clips of a step, [B, 3, F, 64, 64] in [-1, 1]."""
    first = seed_for(seed, f"vae clips {stage.name}", step) >> 16
    return to_pixels(
        np.stack([world.wild(first + place, size=stage.crop, wildness=stage.wild) for place in range(stage.batch)])
    )
