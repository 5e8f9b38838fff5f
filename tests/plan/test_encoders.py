"""Planned memory of encoding: short clips and single tiles continued to what the whole takes."""

from __future__ import annotations

import pytest
import torch

from hv15.memory import WEIGHTS
from hv15.models import vae as vae_module
from hv15.models.text import TextConfig
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_pixels import encode_clips
from hv15.plan.encoders import encoding, make_vae, text_encoding
from hv15.plan.kernels import WithoutData
from hv15.plan.meter import Meter
from hv15.plan.workload import ClipBatch

SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One latent frame at a time, on any device."""
    monkeypatch.setattr(vae_module, "_CHUNK_BYTES", {"cpu": 1, "meta": 1})
    monkeypatch.setattr(vae_module, "_STRIP_BYTES", {"cpu": 1, "meta": 1})


def run(vae: VAE, clips: ClipBatch, tile: int, device: str) -> int:
    """The peak of the whole, really done."""
    with torch.no_grad(), WithoutData(), Meter(device) as meter:
        meter.assign(WEIGHTS, vae)
        given = torch.zeros(1, clips.frames, clips.height, clips.width, 3, dtype=torch.uint8, device=device)
        encode_clips(vae, given, tile, 0.5)
    return meter.peak


@pytest.mark.parametrize("patch_conv", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_short_clip_takes_what_it_takes_on_the_cpu(patch_conv: bool):
    torch.manual_seed(0)
    real = VAE(SIZES).requires_grad_(False)
    real.patch_conv = patch_conv
    clips = ClipBatch(1, 9, 48, 64)
    planned = make_vae(SIZES, torch.float32, patch_conv=patch_conv)
    assert run(planned, clips, 0, "meta") == pytest.approx(run(real, clips, 0, "cpu"), rel=0.01)


@pytest.mark.parametrize(
    ("tile", "clips"),
    [(0, ClipBatch(1, 41, 160, 192)), pytest.param(64, ClipBatch(1, 9, 96, 128), marks=pytest.mark.slow)],
)
def test_long_clips_and_many_tiles_are_continued(tile: int, clips: ClipBatch):
    vae = make_vae(SIZES, torch.float32, patch_conv=False)
    planned = encoding(vae, None, clips, tile_size=tile, overlap=0.5)
    assert planned.peak == pytest.approx(run(vae, clips, tile, "meta"), rel=0.01)


def test_a_text_takes_the_weights_and_little_more():
    sizes = TextConfig(vocab_size=512, hidden_size=256, intermediate_size=512, num_layers=4, num_kv_heads=1)
    plain = text_encoding(sizes, torch.float32, 20, 1)
    assert sum(plain.parts.values()) == plain.peak
    assert 1 < plain.peak / plain.parts[WEIGHTS] < 1.6
    assert text_encoding(sizes, torch.float32, 20, 1, quantize=True).parts[WEIGHTS] < plain.parts[WEIGHTS]
