"""The VAE against the official program's numbers, and what a causal VAE promises."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.models import vae as vae_module
from hv15.models import vae_blocks
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_blocks import Norm, ResBlock, Stream
from tests.models.golden_vae import GOLDEN, golden_vae, pixels

pytestmark = pytest.mark.numeric

CASES = load_file(GOLDEN / "vae_cases.safetensors")
NAMES = sorted({key.partition("/")[0] for key in CASES})
LARGE = [pytest.param(name, marks=pytest.mark.slow) if "size32" in name else name for name in NAMES]
"""Nine small tiles take as long as all else; the cases with tiles of 64 pixels are quick."""
MICRO = load_file(GOLDEN / "micro_ops.safetensors")


@pytest.fixture(scope="module")
def vae() -> VAE:
    return golden_vae().requires_grad_(False)


@pytest.fixture(scope="module")
def exact() -> VAE:
    """In double precision: no order of sums, which processors and sizes choose, is to be seen."""
    return golden_vae().double().requires_grad_(False)


@pytest.fixture(scope="module")
def trainable() -> VAE:
    return golden_vae()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clip is worked off in the smallest chunks: one latent frame at a time."""
    monkeypatch.setitem(vae_module._CHUNK_BYTES, "cpu", 1)


def tiles(name: str) -> dict[str, float]:
    """Tile arguments from the name of a golden case, e.g. tiled_decode_size32_overlap0.5_t2_h3_w4."""
    if not name.startswith("tiled"):
        return {}
    size, overlap = name.split("_")[2:4]
    return {"tile_size": int(size.removeprefix("size")), "overlap": float(overlap.removeprefix("overlap"))}


def check_case(vae: VAE, name: str) -> None:
    """The references were computed in double precision and stored in single: half a step at 4 to 8 is 2.4e-7. In single
    precision the official program itself is off by up to 1.1e-5."""
    dtype = vae.decoder.conv_in.conv.weight.dtype
    close = partial(assert_close, atol=3e-5 if dtype == torch.float32 else 2.4e-7, rtol=0)
    x = CASES[f"{name}/in"].to(dtype)
    if "decode" in name:
        close(vae.decode(x, **tiles(name)), CASES[f"{name}/out"].to(dtype))
        return
    close(vae.moments(x, **tiles(name)), CASES[f"{name}/moments"].to(dtype))
    if f"{name}/mode" in CASES:
        close(vae.encode(x, **tiles(name)), CASES[f"{name}/mode"].to(dtype))


@pytest.mark.parametrize("name", LARGE)
def test_golden(vae: VAE, exact: VAE, name: str):
    check_case(vae, name)
    check_case(exact, name)


WITH_GRADIENTS = ("encode_b1_t5_h32_w48", "decode_b1_t2_h2_w3", "tiled_encode_size64_overlap0.25_t1_h96_w112")


@pytest.mark.parametrize(
    "name", [name if name in WITH_GRADIENTS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_golden_with_gradients_on(trainable: VAE, name: str):
    """With gradients, the blocks do not reuse buffers: the same formulas on another path."""
    check_case(trainable, name)


@pytest.mark.parametrize("name", [name for name in NAMES if "t3" in name or "t9" in name])
@pytest.mark.usefixtures("small_chunks")
def test_golden_in_smallest_chunks(vae: VAE, name: str):
    check_case(vae, name)


def test_all_golden_cases_are_here():
    assert len(NAMES) == 12


@pytest.mark.parametrize("case", ["scale0.001", "scale0.01", "scale1", "zeros"])
def test_norm_of_the_official_module(vae: VAE, case: str):
    x = MICRO[f"vae_norm_out/{case}/in"]
    assert_close(vae.decoder.norm_out(x), MICRO[f"vae_norm_out/{case}/out"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norm_of_zeros_and_of_tiny_values_in_half_precision(dtype: torch.dtype):
    """1e-12 underflows in fp16, and so does the square of 1e-4: both would give NaN or infinity."""
    norm = Norm(4).to(dtype)
    assert torch.equal(norm(torch.zeros(1, 4, 1, 1, 2, dtype=dtype)), torch.zeros(1, 4, 1, 1, 2, dtype=dtype))
    assert_close(norm(torch.full((1, 4, 1, 1, 2), 1e-4, dtype=dtype)), torch.ones(1, 4, 1, 1, 2, dtype=dtype))


def test_norm_of_half_precision_in_parts(monkeypatch: pytest.MonkeyPatch):
    norm, x = Norm(4).half().requires_grad_(False), torch.randn(2, 4, 5, 3, 3).half()
    whole = norm(x, silu=True)
    monkeypatch.setattr(vae_blocks, "_NORM_BYTES", 1)
    assert torch.equal(norm(x, silu=True), whole)
    assert_close(whole, torch.nn.functional.silu(norm(x.float())).half(), atol=2e-3, rtol=0)


def test_a_black_clip_in_half_precision_is_finite(vae: VAE):
    half = golden_vae().half().requires_grad_(False)
    for parameter in half.parameters():
        parameter.zero_()
    assert half.encode(torch.zeros(1, 3, 5, 32, 32)).isfinite().all()
    assert half.decode(torch.zeros(1, 2, 2, 2, 2)).isfinite().all()


def test_half_precision_is_near_single_precision(vae: VAE):
    half = golden_vae().half().requires_grad_(False)
    clip = pixels(5, 32, 32)
    latents = half.encode(clip)
    assert latents.dtype == torch.float16
    assert_close(latents.float(), vae.encode(clip), atol=2e-2, rtol=0)


def test_first_latent_frame_is_the_first_image(exact: VAE):
    """The encoder is causal, so i2v needs no second encoding of the first frame."""
    clip = pixels(9, 32, 48, batch=2).double()
    assert_close(exact.encode(clip)[:, :, :1], exact.encode(clip[:, :, :1]), atol=1e-13, rtol=0)


def test_later_frames_change_no_earlier_latent_or_pixel(exact: VAE):
    clip = pixels(9, 32, 32).double()
    changed = torch.cat([clip[:, :, :5], pixels(4, 32, 32, seed=1).double()], dim=2)
    before, after = exact.encode(clip), exact.encode(changed)
    assert_close(before[:, :, :2], after[:, :, :2], atol=1e-13, rtol=0)
    assert (before[:, :, 2] - after[:, :, 2]).abs().max() > 0.1
    assert_close(exact.decode(before)[:, :, :5], exact.decode(before[:, :, :2]), atol=1e-13, rtol=0)


@pytest.mark.usefixtures("small_chunks")
def test_memory_does_not_grow_with_the_length_of_a_clip(vae: VAE, monkeypatch: pytest.MonkeyPatch):
    """No block ever sees more than one group of frames (4 in pixels)."""
    seen: list[int] = []
    for module in vae.modules():
        if isinstance(module, ResBlock):
            monkeypatch.setattr(module, "forward", lambda x, s, f=module.forward: seen.append(x.shape[2]) or f(x, s))
    vae.encode(pixels(17, 16, 16))
    assert max(seen) == 4
    seen.clear()
    vae.decode(torch.zeros(1, 2, 5, 1, 1))
    assert max(seen) == 4


def test_gradients_reach_input_and_every_weight(trainable: VAE):
    clip = pixels(5, 32, 32).requires_grad_(True)
    restored = trainable.decode(trainable.encode(clip))
    gradients = torch.autograd.grad(restored.square().mean(), [clip, *trainable.parameters()], allow_unused=True)
    log_variance = trainable.encoder.conv_out.conv
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].abs().amax(dim=(0, 1, 3, 4)).min() > 0  # every frame
    missed = [
        name
        for (name, weight), gradient in zip(trainable.named_parameters(), gradients[1:], strict=True)
        if weight is not log_variance.weight and gradient.abs().max() == 0
    ]
    # An image's bias before a sum of softmax weights: keys' biases have no influence on attention.
    assert [name for name in missed if not name.endswith("attn_1.k.bias")] == []


def test_gradient_is_the_slope_of_the_loss():
    """Double precision, one weight in each kind of block, against a difference quotient."""
    vae = golden_vae().double()
    clip = pixels(5, 16, 16).double()

    def loss() -> Tensor:
        return vae.decode(vae.encode(clip)).square().mean()

    loss().backward()
    checked = (
        "encoder.conv_in.conv.weight",
        "encoder.down.2.downsample.conv.conv.weight",
        "encoder.mid.attn_1.q.weight",
        "encoder.norm_out.gamma",
        "decoder.up.0.upsample.conv.conv.weight",
        "decoder.up.4.block.2.norm1.gamma",
    )
    for name in checked:
        weight = vae.get_parameter(name)
        place = int(weight.grad.abs().argmax())
        with torch.no_grad():
            flat, step = weight.view(-1), 1e-6
            flat[place] += step
            above = loss()
            flat[place] -= 2 * step
            below = loss()
            flat[place] += step
        assert_close((above - below) / (2 * step), weight.grad.view(-1)[place], rtol=1e-4, atol=1e-9)


def test_inputs_are_not_changed(vae: VAE):
    clip, latents = pixels(5, 32, 32), torch.randn(1, 2, 2, 2, 2)
    kept_clip, kept_latents = clip.clone(), latents.clone()
    vae.encode(clip)
    vae.decode(latents)
    assert torch.equal(clip, kept_clip)
    assert torch.equal(latents, kept_latents)


def test_log_variance_is_clamped(vae: VAE):
    loud = golden_vae().requires_grad_(False)
    loud.encoder.conv_out.conv.bias[2:] = torch.tensor([100.0, -100.0])
    log_variance = loud.moments(pixels(1, 32, 32))[:, 2:]
    assert torch.equal(log_variance.amax((0, 2, 3, 4)), torch.tensor([20.0, -30.0]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 32, 32), "4k\\+1 frames"),
        ((1, 3, 5, 32, 40), "multiples of 16"),
        ((1, 4, 5, 32, 32), "expected \\[B, 3"),
        ((3, 5, 32, 32), "expected \\[B, 3"),
    ],
)
def test_pixels_of_a_wrong_shape(vae: VAE, shape: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        vae.encode(torch.zeros(shape))


@pytest.mark.parametrize(("tile", "overlap"), [(100, 0.25), (64, 0.3), (64, 1.0)])
def test_tiles_that_fit_no_latent_pixel(vae: VAE, tile: int, overlap: float):
    with pytest.raises(ValueError, match="multiples of 16"):
        vae.decode(torch.zeros(1, 2, 1, 8, 8), tile_size=tile, overlap=overlap)


def test_a_clip_within_one_tile_is_not_tiled(vae: VAE):
    clip = pixels(1, 64, 48)
    assert torch.equal(vae.encode(clip, tile_size=64), vae.encode(clip))
    assert not torch.equal(vae.encode(clip, tile_size=32, overlap=0.5), vae.encode(clip))


def test_real_sizes_on_the_meta_device():
    with torch.device("meta"):
        vae = VAE()
        latents = vae.encode(torch.empty(1, 3, 5, 64, 96))
    assert sum(p.numel() for p in vae.encoder.parameters()) == 389_324_544
    assert sum(p.numel() for p in vae.decoder.parameters()) == 871_309_571
    assert sum(p.numel() for p in vae.parameters()) == 1_260_634_115
    assert latents.shape == (1, 32, 2, 4, 6)
    assert vae.decode(latents).shape == (1, 3, 5, 64, 96)


def test_small_networks_of_one_block_a_level():
    vae = VAE(VAEConfig(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1)).requires_grad_(False)
    assert vae.encode(pixels(9, 64, 64)).shape == (1, 32, 3, 4, 4)
    assert [len(level.block) for level in vae.decoder.up] == [2] * 5


def test_shortcut_where_a_residual_block_changes_width():
    block = ResBlock(4, 8)
    assert isinstance(block.nin_shortcut, nn.Conv3d)
    assert block(torch.randn(1, 4, 1, 3, 3), Stream(tracked=True, last=True)).shape == (1, 8, 1, 3, 3)
    assert ResBlock(4, 4).nin_shortcut is None


@pytest.mark.parametrize(
    "sizes",
    [
        {"block_out_channels": (8, 16, 32)},
        {"ffactor_temporal": 32},
        {"block_out_channels": (8, 16, 32, 64, 96)},
        {"block_out_channels": (8, 16, 20, 64, 64)},
    ],
)
def test_sizes_that_do_not_fit(sizes: dict[str, object]):
    with pytest.raises(ValueError, match=r"fit|multiple|divide"):
        VAEConfig(**sizes)
