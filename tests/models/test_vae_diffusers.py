"""The VAE against diffusers' on the same random weights, in double precision: the formulas, not the order of sums."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import ResBlock, Stream
from hv15.models.vae_layouts import name_in
from tests.models.golden_vae import pixels

pytestmark = pytest.mark.numeric

CONFIG = VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)


@pytest.fixture(scope="module")
def pair() -> tuple[VAE, nn.Module]:
    """Ours and diffusers' VAE with equal weights (norms too are random)."""
    from diffusers import AutoencoderKLHunyuanVideo15

    torch.manual_seed(3)
    ours = VAE(CONFIG).requires_grad_(False)
    for name, weight in ours.named_parameters():
        if name.endswith("gamma"):
            weight.add_(0.2 * torch.randn_like(weight))
    theirs = AutoencoderKLHunyuanVideo15(
        block_out_channels=CONFIG.block_out_channels, layers_per_block=1, latent_channels=32
    )
    theirs.load_state_dict({name_in("diffusers", key): value for key, value in ours.state_dict().items()})
    return ours.double(), theirs.requires_grad_(False).eval().double()


@pytest.fixture
def tiled(pair: tuple[VAE, nn.Module]) -> Iterator[tuple[VAE, nn.Module]]:
    """Tiles of 32 pixels that overlap by half; diffusers wants the latent tile size too, or it keeps the old one."""
    ours, theirs = pair
    theirs.enable_tiling(32, 32, 2, 2, 0.5)
    yield ours, theirs
    theirs.disable_tiling()


@pytest.mark.parametrize("frames", [1, 5, pytest.param(13, marks=pytest.mark.slow)])
def test_encode(pair: tuple[VAE, nn.Module], frames: int):
    ours, theirs = pair
    clip = pixels(frames, 48, 32).double()
    posterior = theirs.encode(clip).latent_dist
    assert_close(ours.encode(clip), posterior.mode(), atol=1e-12, rtol=0)
    assert_close(ours.moments(clip), posterior.parameters, atol=1e-12, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_decode(pair: tuple[VAE, nn.Module], frames: int):
    ours, theirs = pair
    latents = torch.randn(1, 32, frames, 2, 3, dtype=torch.float64)
    assert_close(ours.decode(latents), theirs.decode(latents).sample, atol=1e-12, rtol=0)


def test_a_batch_is_its_samples(pair: tuple[VAE, nn.Module]):
    """diffusers runs the clips one by one, because its attention mask does not allow more."""
    ours, theirs = pair
    clips = pixels(5, 32, 32, batch=3).double()
    expected = torch.cat([theirs.encode(clip[None]).latent_dist.mode() for clip in clips])
    assert_close(ours.encode(clips), expected, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(48, 80), (32, 64), (112, 16)])
def test_tiled(tiled: tuple[VAE, nn.Module], height: int, width: int):
    ours, theirs = tiled
    clip = pixels(5, height, width).double()
    expected = theirs.encode(clip).latent_dist.mode()
    assert_close(ours.encode(clip, tile_size=32, overlap=0.5), expected, atol=1e-12, rtol=0)
    latents = torch.randn(expected.shape, dtype=torch.float64)
    found = ours.decode(latents, tile_size=32, overlap=0.5)
    assert_close(found, theirs.decode(latents).sample, atol=1e-12, rtol=0)


def test_tiles_that_overlap_by_a_quarter(pair: tuple[VAE, nn.Module]):
    ours, theirs = pair
    latents = torch.randn(1, 32, 1, 6, 9, dtype=torch.float64)
    theirs.enable_tiling(64, 64, 4, 4, 0.25)
    try:
        assert_close(
            ours.decode(latents, tile_size=64, overlap=0.25), theirs.decode(latents).sample, atol=1e-12, rtol=0
        )
    finally:
        theirs.disable_tiling()


def test_residual_block_that_changes_width():
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15ResnetBlock

    ours = ResBlock(4, 8).requires_grad_(False).double()
    theirs = HunyuanVideo15ResnetBlock(4, 8).requires_grad_(False).double()
    ours.load_state_dict(
        {key.replace("conv_shortcut", "nin_shortcut"): value for key, value in theirs.state_dict().items()}
    )
    x = torch.randn(1, 4, 3, 6, 5, dtype=torch.float64)
    stream = Stream(tracked=False)
    first = ours(x[:, :, :1], stream)
    stream.first, stream.last = False, True
    assert_close(torch.cat([first, ours(x[:, :, 1:], stream)], dim=2), theirs(x), atol=1e-12, rtol=0)
    assert not stream.kept
