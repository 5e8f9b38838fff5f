"""Attention: kernels are called as their packages want it, padding is never met, what is missing is named.

The packages run on GPUs alone, so stand-ins with their signatures compute the plain formula here.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from hv15.errors import UserError
from hv15.memory import PeakMemory
from hv15.models.attention import PACKAGES, Attention, boundaries, load_kernels, pick_attention, sdpa
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


def plain_packed(q: Tensor, k: Tensor, v: Tensor, bounds: list[int]) -> Tensor:
    """The definition for samples behind one another: [T, H, D] each."""
    parts = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
    return torch.cat([plain(q[None, part], k[None, part], v[None, part])[0] for part in parts])


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
) -> Any:
    bounds = cu_seqlens_q.tolist()
    assert (cu_seqlens_q.dtype, cu_seqlens_k.tolist(), len(q)) == (torch.int32, bounds, bounds[-1])
    assert max_seqlen_q == max_seqlen_k == max(stop - start for start, stop in itertools.pairwise(bounds))
    return plain_packed(q, k, v, bounds)


def flash3_attn_varlen_func(*arguments: Any) -> Any:
    return flash_attn_varlen_func(*arguments), torch.zeros(())


class BlockDiagonalMask(list[int]):
    @classmethod
    def from_seqlens(cls, q_seqlen: Any, kv_seqlen: Any = None, *, device: torch.device | None = None) -> Any:
        return cls([0, *itertools.accumulate(q_seqlen)])


def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor, attn_bias: Any = None) -> Tensor:
    if attn_bias is None:
        return plain(query, key, value)
    assert query.shape[0] == 1
    return plain_packed(query[0], key[0], value[0], attn_bias)[None]


def sageattn(q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False) -> Tensor:
    assert (tensor_layout, is_causal) == ("NHD", False)
    return plain(q, k, v)


FUNCTIONS = {
    "flash": {"flash_attn_func": flash_attn_func, "flash_attn_varlen_func": flash_attn_varlen_func},
    "flash3": {"flash_attn_func": flash3_attn_func, "flash_attn_varlen_func": flash3_attn_varlen_func},
    "xformers": {
        "memory_efficient_attention": memory_efficient_attention,
        "fmha": SimpleNamespace(attn_bias=SimpleNamespace(BlockDiagonalMask=BlockDiagonalMask)),
    },
    "sage": {"sageattn": sageattn},
}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_called_in_its_own_way(name: str, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PACKAGES[name].module, **FUNCTIONS[name])
    q, k, v = qkv()
    assert_close(load_kernels(name)[0](q, k, v), plain(q, k, v))


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


LENGTHS = [[9, 4, 7], [4, 4, 9], [9, 9, 5], [3, 5, 4], [2, 2, 2]]
"""The last two: all samples of a batch have padding."""


@pytest.mark.parametrize("name", ["sdpa", *PACKAGES])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("split", [False, True])
def test_each_package_computes_batches_of_unequal_lengths(
    name: str, lengths: list[int], split: bool, monkeypatch: pytest.MonkeyPatch
):
    """Values and gradients are those of each sample by itself; padding gets zeros."""
    kernels = (sdpa, None)
    if name != "sdpa":
        install(monkeypatch, PACKAGES[name].module, **FUNCTIONS[name])
        kernels = load_kernels(name)
    q, k, v = qkv(batch=3)
    together = Attention(*kernels, split=split)(q, k, v, lengths)
    found = torch.autograd.grad(together.sin().sum(), (q, k, v))
    alone = torch.zeros_like(together)
    for i, n in enumerate(lengths):
        part = plain(q[i : i + 1, :n], k[i : i + 1, :n], v[i : i + 1, :n]).flatten(2)
        alone = alone + torch.nn.functional.pad(part, (0, 0, 0, 9 - n, i, 2 - i))
    expected = torch.autograd.grad(alone.sin().sum(), (q, k, v))
    for ours, reference in zip((together, *found), (alone, *expected), strict=True):
        assert_close(ours, reference, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["flash", "flash3", "xformers"])
def test_unequal_lengths_are_one_call(name: str, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PACKAGES[name].module, **FUNCTIONS[name])
    _, packed = load_kernels(name)
    assert packed is not None
    calls: list[list[int]] = []

    def counted(q: Tensor, k: Tensor, v: Tensor, lengths: Any) -> Tensor:
        calls.append(list(lengths))
        return packed(q, k, v, lengths)

    def refused(*_: Tensor) -> Tensor:
        raise AssertionError

    Attention(refused, counted)(*qkv(batch=3), [9, 4, 7])
    assert calls == [[9, 4, 7]]


def test_without_a_kernel_for_packed_samples_neighbours_of_equal_length_are_one_call():
    calls: list[tuple[int, ...]] = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(tuple(q.shape[:2]))
        return plain(q, k, v)

    Attention(counted)(*qkv(batch=5), [7, 7, 4, 9, 9])
    Attention(counted)(*qkv(batch=2), [7, 7])
    assert calls == [(2, 7), (1, 4), (2, 9), (2, 7)]


def test_boundaries_are_made_once_for_all_blocks():
    bounds = boundaries((9, 4, 7), torch.device("cpu"))
    assert bounds.tolist() == [0, 9, 13, 20]
    assert boundaries((9, 4, 7), torch.device("cpu")) is bounds


class CopiesOf(TorchDispatchMode):
    """Counts operations that copy at least `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copies = ("aten::cat", "aten::copy_", "aten::clone", "aten::_to_copy", "aten::constant_pad_nd")
        if func._schema.name in copies and result.nbytes >= self.size:
            self.count += 1
        return result


@pytest.mark.parametrize(
    ("lengths", "split", "copies"), [([9, 9], False, 0), ([9, 4], False, 1), ([4, 4], False, 1), ([9, 9], True, 3)]
)
def test_q_k_and_v_are_not_copied(lengths: list[int], split: bool, copies: int):
    """They are parts of a joint tensor, as in the token refiner. Only where there is padding, the output is copied."""
    joint = torch.empty(2, 9, 3, 4, 8, device="meta")  # (B, N, q k v, H, D)
    with CopiesOf(joint[:, :, 0].nbytes // 4) as counted:
        Attention(split=split)(*joint.unbind(2), lengths)
    assert counted.count == copies


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
    monkeypatch.setattr("hv15.models.attention.load_kernels", lambda name, _: loaded.append(name) or (sdpa, None))
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
