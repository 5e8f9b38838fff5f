"""The tiny models of super resolution of tests/golden, and the recorded runs of the official program."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import torch
from safetensors import safe_open
from torch import Tensor

from hv15.models import Condition, DiT, DiTConfig
from hv15.models.upsamplers import (
    LatentUpsampler,
    Upsampler720,
    Upsampler720Config,
    Upsampler1080,
    Upsampler1080Config,
)
from tests.models.golden_dit import GOLDEN, tensors

TINY_SR = DiTConfig(
    hidden_size=24,
    num_heads=2,
    num_blocks=2,
    rope_dims=(4, 4, 4),
    text_dim=20,
    glyph_dim=16,
    glyph_hidden=24,
    vision_dim=12,
    meanflow=True,
    low_resolution=True,
)
UPSAMPLER_720 = Upsampler720Config(channels=32, hidden=8, blocks=2)
UPSAMPLER_1080 = Upsampler1080Config(channels=8, widths=(16, 8), layers=2)


@cache
def official_config() -> str:
    """The config.json of the tiny transformer."""
    with safe_open(GOLDEN / "sr_dit_weights.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    return json.dumps(config)


def sr_weights(*, meanflow: bool = True) -> dict[str, Tensor]:
    """Official names; stored as fp16, exact in fp32."""
    weights = tensors("sr_dit_weights").items()
    return {key: value.float() for key, value in weights if meanflow or not key.startswith("time_r_in.")}


def golden_sr_dit(*, meanflow: bool = True) -> DiT:
    with torch.device("meta"):
        dit = DiT(replace(TINY_SR, meanflow=meanflow))
    dit.load_state_dict(sr_weights(meanflow=meanflow), strict=True, assign=True)
    return dit.eval().requires_grad_(False)


def upsampler_weights(name: str) -> dict[str, Tensor]:
    """Those of "w720" or "w1080", by their official names."""
    found = tensors("sr_upsamplers").items()
    return {key.removeprefix(f"{name}/"): value.float() for key, value in found if key.startswith(f"{name}/")}


def golden_upsampler(name: str, *, global_residual: bool = False) -> LatentUpsampler:
    """That of "720p" or "1080p"; trainable."""
    upsampler: LatentUpsampler
    if name == "720p":
        upsampler = Upsampler720(Upsampler720Config(32, 8, 2, global_residual))
    else:
        upsampler = Upsampler1080(UPSAMPLER_1080)
    upsampler.load_state_dict(upsampler_weights(f"w{name.removesuffix('p')}"), strict=True)
    return upsampler


def recorded_run(name: str) -> tuple[dict[str, Tensor], Condition]:
    """A run's tensors by their names, and its condition."""
    run = tensors(name)
    return run, Condition(
        text=run["in/text"],
        text_lengths=run["in/text_mask"].sum(1).int().tolist(),
        glyphs=run["in/glyph"],
        glyph_lengths=run["in/glyph_mask"].sum(1).int().tolist(),
        vision=run.get("in/vision"),
    )
