"""A block's passes over tokens, and linear layers with their LoRA, against torch's own autograd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bench.bench_kernels import NamedMeter, count
from hv15.config.sample import SampleSettings
from hv15.lora import LoRANetwork
from hv15.models import DiT, adapted, pass_kernels
from hv15.models.adapted import linear_gelu, linears, stacked
from hv15.models.passes import gated_sum, head_norm, modulate
from hv15.models.ready import reset, set_up
from hv15.models.rope import rope_table, rotate
from tests.models.golden_dit import TINY

pytestmark = pytest.mark.numeric


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def check(found: Any, expected: Any, *inputs: Tensor) -> None:
    """Compare values and gradients of two functions of the same inputs, the second in torch's plain operations."""
    results = []
    for function in (found, expected):
        leaves = [each.clone().requires_grad_() for each in inputs]
        out = function(*leaves)
        results.append((out, *torch.autograd.grad(out, leaves, random(*out.shape, seed=9))))
    for one, other in zip(*results, strict=True):
        assert_close(one, other, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_modulate(batch: int):
    inputs = random(batch, 5, 12), random(batch, 1, 12, seed=1), random(batch, 1, 12, seed=2)
    check(modulate, lambda x, shift, scale: F.layer_norm(x, (12,), eps=1e-6) * (1 + scale) + shift, *inputs)
    with torch.no_grad():
        assert_close(modulate(*inputs), F.layer_norm(inputs[0], (12,), eps=1e-6) * (1 + inputs[2]) + inputs[1])


@pytest.mark.parametrize("rotates", [True, False])
def test_head_norm(rotates: bool):
    rope = rope_table((1, 2, 3), (4, 4, 8), 256.0) if rotates else None
    weight = random(16, seed=1)

    def plain(x: Tensor) -> Tensor:
        normed = F.rms_norm(x, (16,), weight, eps=1e-6)
        return normed if rope is None else rotate(normed, rope)

    x = random(2, 6, 3, 16)
    check(lambda x: head_norm(x, weight, rope), plain, x)
    expected, place = plain(x), torch.zeros(2, 8, 3, 16)
    with torch.no_grad():
        head_norm(x, weight, rope, place[:, 1:-1])
        assert_close(place[:, 1:-1], expected, atol=2e-6, rtol=2e-5)
        head_norm(x, weight, rope, x)  # in place
        assert torch.equal(x, place[:, 1:-1])


def test_gated_sum():
    inputs = random(2, 5, 12), random(2, 1, 12, seed=1), random(2, 5, 12, seed=2)
    check(gated_sum, lambda x, gate, y: x + gate * y, *inputs)


class Pair(nn.Module):
    """A block of two layers with the same input."""

    def __init__(self) -> None:
        super().__init__()
        self.img_attn_q, self.img_attn_k = nn.Linear(12, 20), nn.Linear(12, 8)


@pytest.fixture(params=[False, True], ids=["torch's product", "oneDNN's product"])
def layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Pair, LoRANetwork]:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(adapted, "LARGE_PRODUCT", 0 if request.param else 10**18)
    torch.manual_seed(0)
    model, pair = nn.Module(), Pair()
    model.double_blocks = nn.ModuleList([pair])
    network = LoRANetwork(model, rank=3, alpha=1.5)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            nn.init.normal_(parameter, std=0.5)
    return pair, network


@pytest.mark.parametrize("used", [(0, 1), (0,), (1,)], ids=["both", "first", "second"])
def test_layers_with_one_input_and_their_branches(layers: tuple[Pair, LoRANetwork], used: tuple[int, ...]):
    """The reference calls the layers, whose branches are then hooks. An unused output has no gradient."""
    pair, network = layers
    x = random(2, 7, 12)
    results = []
    for function in (linears, lambda modules, x: [module(x) for module in modules]):
        leaf = x.clone().requires_grad_()
        outputs = function((pair.img_attn_q, pair.img_attn_k), leaf)
        total = sum((outputs[i] * random(*outputs[i].shape, seed=i)).sum() for i in used)
        leaves = [leaf, *network.parameters()]
        results.append((*outputs, *torch.autograd.grad(total, leaves, allow_unused=True)))
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        place = torch.zeros(2, 7, 20)
        linears((pair.img_attn_q, pair.img_attn_k), x, [place, None])
        assert_close(place, pair.img_attn_q(x), atol=1e-5, rtol=1e-5)


def test_a_layer_a_branch_and_gelu(layers: tuple[Pair, LoRANetwork]):
    pair, network = layers
    learned = list(network.parameters())[:2]
    results = []
    for function in (linear_gelu, lambda layer, x: F.gelu(layer(x), approximate="tanh")):
        x = random(7, 12).requires_grad_()
        out = function(pair.img_attn_q, x)
        results.append((out, *torch.autograd.grad(out, [x, *learned], random(7, 20, seed=1))))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_other_hooks_are_called(layers: tuple[Pair, LoRANetwork]):
    pair, _ = layers
    pair.img_attn_k.register_forward_hook(lambda _module, _args, output: output * 0)
    one, two = linears((pair.img_attn_q, pair.img_attn_k), random(7, 12))
    assert one.any()
    assert not two.any()


def test_neighbours_are_stacked_without_a_copy():
    whole = random(6, 4)
    parts = whole.split([1, 3, 2])
    assert stacked(parts).data_ptr() == whole.data_ptr()
    assert torch.equal(stacked(parts), whole)
    assert torch.equal(stacked([parts[0], parts[2]]), torch.cat([parts[0], parts[2]]))


def test_a_branch_follows_its_parameters_in_another_dtype():
    """They are cast when a forward pass of the transformer begins, into the same memory."""
    with torch.device("meta"):
        dit = DiT(TINY).to(torch.bfloat16)
    network = LoRANetwork(dit, rank=2, alpha=2)
    block = next(iter(network.children()))
    assert block.cast is not None
    assert block.cast[0].dtype == torch.bfloat16
    assert stacked([each.cast[0] for each in list(network.children())[1:4]])._base is not None  # q, k, v: a view


@pytest.mark.slow
def test_kernels_of_a_block():
    """Counted as `bench/bench_kernels.py` does, and traffic also with what is allocated."""
    forward, with_lora, step = (
        count(lora=False, training=False), count(lora=True, training=False), count(lora=True, training=True)
    )  # fmt: skip
    assert forward.kernels <= 36
    assert forward.gigabytes + forward.allocated < 2.5
    assert with_lora.kernels <= 55
    assert with_lora.gigabytes + with_lora.allocated < 3.1
    assert step.kernels <= 350
    assert step.gigabytes + step.allocated < 14


@pytest.mark.parametrize("enabled", [True, False])
def test_the_setting_switches_kernels(enabled: bool):
    config = replace(TINY, hidden_size=32, num_heads=2, rope_dims=(4, 4, 8))
    with torch.device("meta"):
        dit = DiT(config)
        set_up(dit, SampleSettings(fused_kernels=enabled), "meta")
        block = dit.double_blocks[0]
        counted = NamedMeter()
        with counted, torch.no_grad():
            block.image_out(torch.zeros(1, 6, 32), torch.zeros(1, 6, 32), block.img_mod(torch.zeros(1, 32)))
            block.img_attn_q_norm(torch.zeros(1, 6, 2, 16))
    assert ("head_norm" in counted.operations) == enabled
    reset(dit)
    assert pass_kernels.ENABLED


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    pass_kernels.ENABLED = True
