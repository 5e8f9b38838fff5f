"""Attention: kernels are called as their packages want it, padding is never met, what is missing is named.

The packages run on GPUs alone, so stand-ins with their signatures compute the plain formula here.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.memory import PeakMemory
from hv15.models.attention import PACKAGES, Attention, load_kernel, pick_attention, sdpa
from hv15.models.fused_attention import fused_attention

pytestmark = pytest.mark.numeric

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition: [B, N, H, D] each."""
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)


def qkv(batch: int = 2, tokens: int = 9, heads: int = 6, width: int = 8) -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    return [torch.randn(batch, tokens, heads, width, generator=rng, requires_grad=True) for _ in range(3)]


def install(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Let a package seem installed."""
    parent = name.partition(".")[0]
    for each in {parent, name}:
        module = ModuleType(each)
        module.__spec__ = importlib.util.spec_from_loader(each, None)
        monkeypatch.setitem(sys.modules, each, module)
    for key, function in functions.items():
        setattr(sys.modules[name], key, function)


def on_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _device=None: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device=None: "a GPU")


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None) -> Any:
    assert (dropout_p, softmax_scale) == (0.0, None)
    return plain(q, k, v)


def flash3_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None = None) -> Any:
    return plain(q, k, v), torch.zeros(())


def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor, attn_bias: Any = None) -> Tensor:
    return plain(query, key, value)


def sageattn(q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False) -> Tensor:
    assert (tensor_layout, is_causal) == ("NHD", False)
    return plain(q, k, v)


FUNCTIONS = {
    "flash": {"flash_attn_func": flash_attn_func},
    "flash3": {"flash_attn_func": flash3_attn_func},
    "xformers": {"memory_efficient_attention": memory_efficient_attention},
    "sage": {"sageattn": sageattn},
}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_called_in_its_own_way(name: str, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PACKAGES[name].module, **FUNCTIONS[name])
    q, k, v = qkv()
    assert_close(load_kernel(name)(q, k, v), plain(q, k, v))


def test_torchs_own_attention_and_the_fused_operation_are_the_definition():
    """Values and gradients: plans run the fused operation, so it must equal the real one."""
    results = []
    for kernel in (plain, sdpa, lambda q, k, v: fused_attention(q, k, v)[0]):
        q, k, v = qkv()
        out = kernel(q, k, v)
        results.append(
            [out, *torch.autograd.grad((out * torch.arange(out.numel()).view_as(out).cos()).sum(), (q, k, v))]
        )
    for found in results[1:]:
        for ours, expected in zip(found, results[0], strict=True):
            assert_close(ours, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_a_batch_of_unequal_lengths_equals_its_samples(split: bool, grad: bool):
    q, k, v = qkv(batch=3)
    lengths = [9, 4, 7]
    with torch.set_grad_enabled(grad):
        together = Attention(split=split)(q, k, v, lengths)
        for i, n in enumerate(lengths):
            alone = plain(q[i : i + 1, :n], k[i : i + 1, :n], v[i : i + 1, :n]).flatten(2)
            assert_close(together[i : i + 1, :n], alone, atol=1e-6, rtol=1e-5)
            assert not together[i, n:].any()


@pytest.mark.parametrize("heads", [1, 3, 6, 8])
def test_splitting_changes_no_bit(heads: int):
    results = []
    for split in (False, True):
        q, k, v = qkv(heads=heads)
        out = Attention(split=split)(q, k, v, [9, 9])
        with torch.no_grad():
            assert torch.equal(Attention(split=split)(q, k, v, [9, 9]), out)
        results.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v))])
    for whole, parts in zip(*results, strict=True):
        assert torch.equal(whole, parts)


def test_splitting_needs_less_memory_at_a_time():
    """With a kernel that holds its scores: 4 groups of heads hold a quarter each."""
    peaks = []
    for split in (False, True):
        q, k, v = (each.detach() for each in qkv(batch=1, tokens=256, heads=8))
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), PeakMemory("cpu") as memory:
            Attention(split=split)(q, k, v, [256])
        peaks.append(memory.peak)
    assert peaks[1] < 0.4 * peaks[0]


@pytest.mark.parametrize(
    ("capability", "installed", "dtype", "expected"),
    [
        ((9, 0), ["flash3", "flash"], torch.bfloat16, "flash3"),
        ((8, 9), ["flash3", "flash"], torch.bfloat16, "flash"),
        ((12, 0), ["flash3"], torch.bfloat16, "sdpa"),
        ((9, 0), [], torch.bfloat16, "sdpa"),
        ((9, 0), ["flash3", "flash"], torch.float32, "sdpa"),
        ((7, 5), ["flash", "xformers", "sage"], torch.float16, "sdpa"),
    ],
)
def test_auto_takes_the_first_that_is_there_and_runs(
    capability: Any, installed: list[str], dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
):
    on_gpu(monkeypatch, capability)
    for name in installed:
        install(monkeypatch, PACKAGES[name].module, **FUNCTIONS[name])
    loaded: list[str] = []
    monkeypatch.setattr("hv15.models.attention.load_kernel", lambda name: loaded.append(name) or sdpa)
    pick_attention("auto", split=False, device=CUDA, dtype=dtype, training=True)
    assert loaded == ([] if expected == "sdpa" else [expected])


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_what_brings_it(name: str, monkeypatch: pytest.MonkeyPatch):
    on_gpu(monkeypatch, (9, 0))
    package = PACKAGES[name].module.partition(".")[0]
    monkeypatch.setattr("hv15.models.attention.find_spec", lambda module: None if module == package else 1)
    with pytest.raises(UserError, match=f"attn_mode: {name} needs the package {package}") as caught:
        pick_attention(name, split=False, device=CUDA, dtype=torch.bfloat16, training=False)
    assert (f"hv15[{name}]" if name != "flash3" else "hopper") in caught.value.hint


def test_a_package_for_another_cuda_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch):
    on_gpu(monkeypatch, (9, 0))
    install(monkeypatch, "flash_attn", **FUNCTIONS["flash"])

    def broken(name: str) -> ModuleType:
        raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.setattr("hv15.models.attention.import_module", broken)
    with pytest.raises(UserError, match="cannot be imported: undefined symbol") as caught:
        pick_attention("flash", split=False, device=CUDA, dtype=torch.bfloat16, training=True)
    assert "hv15[flash]" in caught.value.hint


@pytest.mark.parametrize(
    ("mode", "device", "capability", "dtype", "message"),
    [
        ("flash", CPU, (9, 0), torch.bfloat16, "runs only on GPUs, not on cpu"),
        ("flash", CUDA, (7, 5), torch.bfloat16, "does not run on a GPU"),
        ("flash3", CUDA, (12, 0), torch.bfloat16, "does not run on a GPU"),
        ("sage", CUDA, (9, 0), torch.float32, "takes bfloat16 or float16, not float32"),
    ],
)
def test_what_a_kernel_cannot_run_on_is_said(
    mode: str, device: Any, capability: Any, dtype: Any, message: str, monkeypatch: pytest.MonkeyPatch
):
    on_gpu(monkeypatch, capability)
    install(monkeypatch, PACKAGES[mode].module, **FUNCTIONS[mode])
    with pytest.raises(UserError, match=message) as caught:
        pick_attention(mode, split=False, device=device, dtype=dtype, training=False)
    assert "attn_mode: auto" in caught.value.hint


def test_sage_is_refused_in_training_wherever_it_would_run():
    for device in (CPU, CUDA, torch.device("meta")):
        with pytest.raises(UserError, match="no backward pass") as caught:
            pick_attention("sage", split=False, device=device, dtype=torch.bfloat16, training=True)
        assert "sample.attn_mode" in caught.value.hint


def test_a_plan_needs_no_package():
    attention = pick_attention("flash", split=True, device="meta", dtype=torch.bfloat16, training=True)
    assert attention.split
