"""The tiny VAE of the golden vectors, and networks of the same kind for the other tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hv15.models.vae import VAE, VAEConfig
from tests.models.copies import copied

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = Path(__file__).parents[1] / "keys"
SIZES = json.loads((GOLDEN / "vae_config.json").read_text())
CONFIG = VAEConfig(latent_channels=SIZES["latent_channels"], block_out_channels=tuple(SIZES["block_out_channels"]))


def golden_weights() -> dict[str, Tensor]:
    """Official names; stored as fp16, exact in fp32."""
    parts = [load_file(GOLDEN / f"vae_weights_{part}_fp16.safetensors") for part in ("encoder", "decoder")]
    return {key: value.float() for part in parts for key, value in part.items()}


def golden_vae() -> VAE:
    """The VAE whose outputs the golden cases hold; trainable."""
    return copied(_loaded())


@cache
def _loaded() -> VAE:
    vae = VAE(CONFIG)
    vae.load_state_dict(golden_weights())
    return vae


def pixels(frames: int, height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Random pixels [B, 3, F, H, W] in [-1, 1]."""
    shape = (batch, 3, frames, height, width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
