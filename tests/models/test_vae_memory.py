"""The VAE's ways to need less memory: strips of rows, tiles, short chunks. Equal numbers, and a lower measured peak."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from hv15.memory import PeakMemory
from hv15.models import vae as vae_module
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import Stream
from tests.models.golden_vae import GOLDEN, golden_vae, pixels
from tests.models.test_vae import NAMES, tiles

CASES = load_file(GOLDEN / "vae_cases.safetensors")


@pytest.fixture
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at a time, one latent frame at a time."""
    monkeypatch.setitem(vae_module._STRIP_BYTES, "cpu", 1)


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)).requires_grad_(False)


def in_strips(vae: VAE, on: bool) -> VAE:
    vae.patch_conv = on
    return vae


IN_STRIPS = (
    "encode_b1_t5_h32_w48",
    "encode_b1_t9_h32_w32",
    "decode_b1_t3_h2_w2",
    "tiled_encode_size64_overlap0.25_t1_h96_w112",
)


@pytest.mark.parametrize(
    "name", [name if name in IN_STRIPS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
@pytest.mark.usefixtures("narrow_strips")
def test_golden_in_strips(name: str):
    """The official VAE's numbers, whole and in tiles."""
    vae = in_strips(golden_vae().requires_grad_(False), True)
    x = CASES[f"{name}/in"]
    found, expected = (vae.decode, "out") if "decode" in name else (vae.moments, "moments")
    assert_close(found(x, **tiles(name)), CASES[f"{name}/{expected}"], atol=3e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 10])
def test_strips_of_any_height_give_the_same_numbers(vae: VAE, monkeypatch: pytest.MonkeyPatch, rows: int):
    """Also where the last strip is lower than the others. In double precision, because a convolution may sum strips in
    another order."""
    vae = in_strips(deepcopy(vae).double(), False)
    clip = pixels(5, 48, 32, batch=2).double()
    latents = vae.encode(clip)
    video = vae.decode(latents)
    monkeypatch.setattr(Stream, "strips", lambda _self, x, _channels: strips_of(rows, x.shape[3]))
    in_strips(vae, True)
    assert_close(vae.encode(clip), latents, atol=1e-13, rtol=1e-12)
    assert_close(vae.decode(latents), video, atol=1e-13, rtol=1e-12)


def strips_of(rows: int, height: int):
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), slice(max(top - 1, 0), min(bottom + 1, height))


@pytest.mark.usefixtures("narrow_strips")
def test_strips_are_not_used_with_gradients():
    """Blocks would write into what the backward pass needs."""
    trainable = in_strips(golden_vae(), True)
    clip = pixels(5, 32, 32)
    expected = golden_vae().encode(clip)
    encoded = trainable.encode(clip)
    encoded.square().mean().backward()
    assert_close(encoded, expected, atol=1e-6, rtol=0)
    assert trainable.encoder.conv_in.conv.weight.grad is not None


def peak(vae: VAE, what: str, x: Tensor, tile_size: int = 0) -> int:
    """Bytes at the peak; nothing is left of them but the result."""
    with torch.no_grad(), PeakMemory("cpu") as memory:
        result = getattr(vae, what)(x, tile_size=tile_size, overlap=0.5)
    assert memory.now == result.untyped_storage().nbytes()
    return memory.peak


@pytest.mark.usefixtures("narrow_strips")
@pytest.mark.parametrize("what", ["encode", pytest.param("decode", marks=pytest.mark.slow)])
def test_strips_need_less_memory(vae: VAE, what: str):
    """What remains: the frames that a chunk passes to the next one, and two copies of the widest features."""
    x = pixels(5, 64, 64) if what == "encode" else torch.randn(1, 32, 2, 4, 4)
    whole, strips = (peak(in_strips(vae, on), what, x) for on in (False, True))
    assert strips < 0.7 * whole


@pytest.mark.parametrize("what", ["encode", pytest.param("decode", marks=pytest.mark.slow)])
def test_tiles_need_less_memory(vae: VAE, what: str):
    x = pixels(5, 64, 64) if what == "encode" else torch.randn(1, 32, 2, 4, 4)
    in_strips(vae, False)
    whole, tiles = (peak(vae, what, x, tile_size) for tile_size in (0, 32))
    assert tiles < 0.7 * whole


@pytest.mark.slow
def test_memory_of_a_long_clip_is_that_of_its_frames_and_of_one_chunk(vae: VAE, monkeypatch: pytest.MonkeyPatch):
    """Besides the result, only attention's cache grows with the frames: a key and a value for each latent pixel."""
    monkeypatch.setitem(vae_module._CHUNK_BYTES, "cpu", 1)
    in_strips(vae, False)
    short, long = (peak(vae, "decode", torch.randn(1, 32, frames, 4, 4)) for frames in (6, 8))
    result, kept = 3 * 8 * 64 * 64 * 4, 2 * 2 * 16 * 64 * 4
    assert long - short == pytest.approx(result + kept, rel=0.01)
