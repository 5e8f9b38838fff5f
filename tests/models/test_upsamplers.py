"""The latent upsamplers against the official classes' numbers, and what causal networks in chunks promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from hv15.memory import WEIGHTS, PeakMemory
from hv15.models import upsamplers
from hv15.models.upsamplers import LatentUpsampler, Upsampler720, Upsampler1080
from tests.models.golden_dit import tensors
from tests.models.golden_sr import golden_upsampler, upsampler_weights

pytestmark = pytest.mark.numeric

NAMES = ("720p", "1080p")
CASES = ("one_frame", "clip", "batch")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame at a time."""
    monkeypatch.setitem(upsamplers._CHUNK_BYTES, "cpu", 1)


def enlarged(case: str, upsampler: LatentUpsampler) -> Tensor:
    return tensors("sr_upsamplers")[f"{case}/resized"][:, : upsampler.channels]


def clip(channels: int, frames: int = 8) -> Tensor:
    return torch.randn(2, channels, frames, 5, 6, generator=torch.Generator().manual_seed(3))


def check(name: str, case: str, *, trained: bool) -> None:
    """The references were computed in double precision and stored in single."""
    wanted = tensors("sr_upsamplers")[f"{case}/out_{name}"]
    single = golden_upsampler(name).requires_grad_(trained)
    assert_close(single(enlarged(case, single)), wanted, atol=2e-5, rtol=0)
    double = golden_upsampler(name).double().requires_grad_(trained)
    assert_close(double(enlarged(case, double).double()), wanted.double(), atol=5e-7, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("trained", [False, True])
def test_golden(name: str, case: str, trained: bool) -> None:
    """With gradients nothing is overwritten: the same formulas on another path."""
    check(name, case, trained=trained)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trained", [False, True])
def test_golden_frame_by_frame(name: str, trained: bool) -> None:
    check(name, "clip", trained=trained)


def test_the_input_is_added_only_if_the_config_says_so() -> None:
    upsampler = golden_upsampler("720p", global_residual=True)
    wanted = tensors("sr_upsamplers")["clip/out_720p_global_residual"]
    assert_close(upsampler(enlarged("clip", upsampler)), wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_change_no_numbers(name: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one convolution over the whole padded clip, in double precision."""
    upsampler = golden_upsampler(name).double().requires_grad_(False)
    x = clip(upsampler.channels).double()
    frame = x.shape[0] * upsampler.widest * x.shape[3] * x.shape[4] * x.element_size()
    monkeypatch.setitem(upsamplers._CHUNK_BYTES, "cpu", frames * frame)
    assert upsampler.chunk_frames(x) == frames
    assert_close(upsampler(x), PLAIN[name](x), atol=1e-12, rtol=0)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_no_frame_sees_a_later_one(name: str) -> None:
    upsampler = golden_upsampler(name).requires_grad_(False)
    x = clip(upsampler.channels)
    changed = x.clone()
    changed[:, :, 5:] = 9.0
    before, after = upsampler(x), upsampler(changed)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.equal(before[:, :, 5], after[:, :, 5])


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_not_overwritten(name: str) -> None:
    upsampler = golden_upsampler(name).requires_grad_(False)
    x = clip(upsampler.channels)
    before = x.clone()
    upsampler(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(1, 31, 2, 4, 4), (32, 2, 4, 4), (1, 32, 0, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 32, F, H, W\]"):
        golden_upsampler("720p")(torch.zeros(shape))


def test_the_published_sizes() -> None:
    """Both together have the 287 MB that the repository names."""
    with torch.device("meta"):
        networks = Upsampler720(), Upsampler1080()
    assert [len(each.state_dict()) for each in networks] == [100, 43]
    numbers = [sum(value.numel() for value in each.state_dict().values()) for each in networks]
    assert numbers == [21_461_152, 50_350_112]


# A plain implementation: whole clips, no chunks, no summed weights.


def causal(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    padded = F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate")
    return F.conv3d(padded, weights[f"{name}.conv.weight"].double(), weights[f"{name}.conv.bias"].double())


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.silu(F.normalize(x, dim=1, eps=1e-12) * x.shape[1] ** 0.5 * weights[f"{name}.gamma"].double())


def plain_720(x: Tensor) -> Tensor:
    w = upsampler_weights("w720")
    y = causal(x, w, "in_conv")
    for block in range(2):
        h = causal(y, w, f"blocks.{block}.block.0")
        for conv in (2, 4):
            h = causal(F.silu(h), w, f"blocks.{block}.block.{conv}")
        y = y + h
    return causal(y, w, "out_conv")


def plain_1080(x: Tensor) -> Tensor:
    w = upsampler_weights("w1080")
    y = causal(x, w, "conv_in") + x.repeat_interleave(2, dim=1)
    for level in range(2):
        for block in range(2):
            name = f"up.{level}.block.{block}"
            h = causal(normed(y, w, f"{name}.norm1"), w, f"{name}.conv1")
            h = causal(normed(h, w, f"{name}.norm2"), w, f"{name}.conv2")
            shortcut = w.get(f"{name}.nin_shortcut.weight")
            if shortcut is not None:
                y = F.conv3d(y, shortcut.double(), w[f"{name}.nin_shortcut.bias"].double())
            y = y + h
    return causal(normed(y, w, "norm_out"), w, "conv_out")


PLAIN = {"720p": plain_720, "1080p": plain_1080}


@pytest.mark.parametrize("network", [Upsampler720, pytest.param(Upsampler1080, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length(network: type[Upsampler720 | Upsampler1080]) -> None:
    """Of the published sizes at 1904x1072 pixels: beyond the latents themselves, which are read, made and joined."""
    rest = []
    for frames in (31, 61):
        with torch.device("meta"), torch.no_grad(), PeakMemory("meta") as memory:
            upsampler = network()
            memory.assign(WEIGHTS, upsampler)
            latents = torch.empty(1, 32, frames, 67, 119)
            upsampler(latents)
        rest.append(memory.peak - memory.parts[WEIGHTS] - 3 * latents.nbytes)
    assert rest[1] < 1.1 * rest[0]
    assert rest[0] < 0.9 * 2**30
