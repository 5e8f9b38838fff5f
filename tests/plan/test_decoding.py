"""Planned memory of decoding: a few chunks and one tile, continued to what the whole takes that is really decoded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hv15.memory import WEIGHTS
from hv15.models import vae as vae_module
from hv15.models import vae_decoding
from hv15.models.spool import Spool
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_decoding import Tiling, decoded_parts
from hv15.models.vae_pixels import to_bytes
from hv15.plan.decoding import decoding, waiting_bytes
from hv15.plan.encoders import make_vae
from hv15.plan.meter import Meter

SEAMLESS = Tiling(64, seamless=True)
SIZES = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)


@pytest.fixture
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One latent frame at a time, on any device, and one frame of pixels where tiles are joined."""
    monkeypatch.setattr(vae_module, "_CHUNK_BYTES", {"cpu": 1, "meta": 1})
    monkeypatch.setattr(vae_module, "_STRIP_BYTES", {"cpu": 1, "meta": 1})
    monkeypatch.setattr(vae_decoding, "_JOINED_BYTES", 1)


def really(latent: tuple[int, int, int], tiling: Tiling, patch_conv: bool, folder: Path) -> Meter:
    torch.manual_seed(0)
    vae = VAE(SIZES).requires_grad_(False)
    vae.patch_conv = patch_conv
    with torch.no_grad(), Meter("cpu") as meter:
        meter.assign(WEIGHTS, vae)
        for pixels in decoded_parts(vae, torch.zeros(1, 32, *latent), tiling, folder):
            bool(torch.isfinite(pixels).all())
            to_bytes(pixels)
    return meter


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize(
    ("latent", "tiling", "patch_conv"),
    [
        ((7, 1, 5), SEAMLESS, False),
        *(
            pytest.param(*slow, marks=pytest.mark.slow)
            for slow in (
                ((7, 1, 2), Tiling(), True),
                ((8, 2, 2), Tiling(), False),
                ((8, 2, 5), Tiling(64, 0.5), False),
                ((8, 2, 5), Tiling(64, 0.5), True),
                ((8, 1, 5), SEAMLESS, True),
            )
        ),
    ],
)
def test_the_plan_is_what_decoding_takes(
    latent: tuple[int, int, int], tiling: Tiling, patch_conv: bool, tmp_path: Path
) -> None:
    planned = decoding(make_vae(SIZES, torch.float32, patch_conv=patch_conv), latent, tiling)
    done = really(latent, tiling, patch_conv, tmp_path)
    assert planned.peak == pytest.approx(done.peak, rel=0.01)
    assert planned.flops == pytest.approx(done.flops, rel=0.1 if tiling.size else 0.001)


@pytest.mark.parametrize(
    ("latent", "tiling"),
    [
        ((2, 2, 2), Tiling()),
        ((2, 2, 5), Tiling(64, 0.5)),
        pytest.param((2, 5, 6), Tiling(64, 0.25), marks=pytest.mark.slow),
        ((2, 2, 5), SEAMLESS),
    ],
)
def test_the_tiles_that_wait_are_as_large_as_planned(
    latent: tuple[int, int, int], tiling: Tiling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [0]

    class Measured(Spool):
        def __exit__(self, *error: Any) -> None:
            sizes.append(self._file.seek(0, os.SEEK_END))
            super().__exit__(*error)

    monkeypatch.setattr(vae_decoding, "Spool", Measured)
    really(latent, tiling, False, tmp_path)
    planned = waiting_bytes(make_vae(SIZES, torch.float32, patch_conv=False), latent, tiling)
    assert planned == max(sizes)
    assert bool(planned) == bool(tiling.size)


@pytest.mark.slow
@pytest.mark.parametrize("tiling", [Tiling(256, 0.25), Tiling(256, seamless=True)])
def test_121_frames_at_720p(tiling: Tiling) -> None:
    """At the published size: the weights, and less than 2 GiB beside them."""
    vae = make_vae(VAEConfig(), torch.float16, patch_conv=False)
    planned = decoding(vae, (31, 45, 80), tiling)
    assert planned.peak - planned.parts[WEIGHTS] < 2 * 2**30
