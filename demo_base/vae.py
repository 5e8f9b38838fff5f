"""Trains the demo's VAE from scratch: the encoder to compute the latents that the basis defines, the decoder to invert
them.

Convolutions with more inputs have a lower rate, since Adam changes all weights by the same amount. Residual branches
start at 0. A step's clips and noise depend only on stage and step, so a killed stage resumes as if it had not stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_base.basis import CellBasis, to_pixels
from demo_base.closed_form import fit_decoder, fit_encoder
from demo_base.loop import Course, StepResult, train
from hv15.atomic import atomic_path
from hv15.demo import world
from hv15.models.latents import SCALING_FACTOR
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import Stream
from hv15.models.vae_coders import Decoder, Encoder
from hv15.records.metrics import MetricsRecord
from hv15.train.random import generator, seed_for
from hv15.train.state import locked

SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)


@dataclass(frozen=True, kw_only=True)
class VaeStep(MetricsRecord):
    """A step in the metrics.jsonl of the encoder or the decoder."""

    kind = "vae_step"
    loss: float
    psnr: float
    """In decibels."""
    grad_norm: float
    lr: float


@dataclass(frozen=True)
class VaeStage:
    """How the encoder or the decoder is trained."""

    name: Literal["encoder", "decoder"]
    steps: int
    batch: int
    rate: float
    """Peak learning rate: linear warm-up over `warmup` steps, then a cosine to zero."""
    warmup: int = 50
    wild: float = 0.1
    """Probability of colours, and of a motion, for which captions have no name."""
    crop: int = 48
    """Side of the trained square in pixels; a smaller square around the shape has more edges for the same work."""
    noise: float = 0.0
    """Standard deviation of the noise that is added to the decoder's latents, since sampled latents are not exact."""
    state_every: int = 100


STAGES = {
    "encoder": VaeStage("encoder", steps=1500, batch=4, rate=3e-4),
    "decoder": VaeStage("decoder", steps=300, batch=4, rate=3e-5, noise=0.1),
}
FITTED = {"encoder": 500, "decoder": 400}
"""Number of clips to which the initial weights are fitted."""


def new_vae(seed: int) -> VAE:
    """Return an untrained VAE whose layers keep the variance of their inputs and whose residual branches add 0.

    The first layers add constants to the signal; without them, norms would lose how close a colour is to grey, which
    is 0.
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
    """Return parameter groups with their peak rates; those with few inputs, such as biases, get half of `rate`."""
    return [
        {"params": [parameter], "peak": rate * min(0.5, 100 / _inputs(parameter))} for parameter in half.parameters()
    ]


def train_vae_stage(stage: VaeStage, basis: CellBasis, folder: Path, *, seed: int = 0) -> Path:
    """Train the encoder or decoder, or resume it; return its weights, `<folder>/<stage>.safetensors`, fp32.

    Raises:
        UserError: a file cannot be written, or another process runs the same stage.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target = folder / f"{stage.name}.safetensors"
    work = folder / stage.name
    with locked(work):
        half = getattr(new_vae(seed), stage.name)
        start = work / "start.safetensors"
        if not start.exists():
            fit_half(half, basis, stage, seed)
            with atomic_path(start) as temporary:
                save_file(half.state_dict(), temporary)
        half.load_state_dict(load_file(start))
        _run(stage, half, basis, work, f"{stage} {seed}", seed)
        with atomic_path(target) as temporary:
            save_file(half.state_dict(), temporary)
    return target


def fit_half(half: Encoder | Decoder, basis: CellBasis, stage: VaeStage, seed: int) -> None:
    """Set the initial weights of the encoder or decoder in closed form."""
    first = seed_for(seed, f"vae fit {stage.name}", 0) >> 16
    clips = [world.varied_clip(first + number, variation=stage.wild) for number in range(FITTED[stage.name])]
    pixels, draws = to_pixels(np.stack(clips)), generator(seed, f"vae fit {stage.name}", 1)
    latents = basis.encode(pixels)
    if isinstance(half, Encoder):
        fit_encoder(half, pixels, latents, draws)
    else:
        fit_decoder(half, latents + stage.noise * torch.randn(latents.shape, generator=draws), pixels, draws)


def _run(stage: VaeStage, half: Encoder | Decoder, basis: CellBasis, work: Path, spec: str, seed: int) -> None:
    def losses_of_step(step: int) -> tuple[Tensor, Tensor]:
        pixels = batch_of(stage, step, seed)
        noise = generator(seed, f"vae noise {stage.name}", step)
        return losses(half, basis.encode(pixels), pixels, stage.noise, noise)

    def record(step: int, result: StepResult) -> VaeStep:
        decibels = round(_decibels(result), 3)
        return VaeStep(step=step, loss=result.loss, psnr=decibels, grad_norm=result.grad_norm, lr=result.lr)

    course = Course(stage.name, stage.steps, stage.rate, stage.warmup, stage.state_every)
    train(
        half,
        _groups(half, stage.rate),
        course,
        losses_of_step,
        work,
        spec=spec,
        record=record,
        note=lambda result: f"{_decibels(result):.1f} dB",
    )


def _decibels(result: StepResult) -> float:
    return float(10 * np.log10(4 / result.error))


def losses(
    half: Encoder | Decoder, latents: Tensor, pixels: Tensor, spread: float, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the loss and the mean squared error, both scalars, of scaled latents (encoder) or of pixels (decoder).

    The decoder's loss counts colour errors twice, because the backgrounds are grey and the shapes are small.

    Args:
        latents: [B, 32, F', h, w].
        pixels: [B, 3, F, H, W].
        spread: standard deviation of the noise on the decoder's latents.
    """
    if isinstance(half, Encoder):
        found = run_half(half, pixels)[:, : SIZES.latent_channels]
        error = (SCALING_FACTOR * (found - latents)).square().mean()
        return error, error.detach()
    noisy = latents + spread * torch.randn(latents.shape, generator=noise)
    difference = run_half(half, noisy) - pixels
    error = difference.square().mean()
    return error + (difference - difference.mean(1, keepdim=True)).square().mean(), error.detach()


def run_half(half: Encoder | Decoder, x: Tensor) -> Tensor:
    """Run the encoder or decoder on x [B, C, F, H, W] with gradients: the first frame, then all others."""
    stream = Stream(tracked=True, first=True, last=x.shape[2] == 1)
    results = [half(x[:, :, :1], stream)]
    if x.shape[2] > 1:
        stream.first, stream.last = False, True
        results.append(half(x[:, :, 1:], stream))
    return torch.cat(results, 2)


def batch_of(stage: VaeStage, step: int, seed: int) -> Tensor:
    """Return the clips of a step, [B, 3, F, crop, crop] in [-1, 1]."""
    first = seed_for(seed, f"vae clips {stage.name}", step) >> 16
    return to_pixels(
        np.stack(
            [world.varied_clip(first + number, size=stage.crop, variation=stage.wild) for number in range(stage.batch)]
        )
    )
