"""The Triton kernels against torch's operations: interpreted on a CPU, or on the GPU if there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from hv15.lora import LoRANetwork
from hv15.models import Condition, DiT, pass_kernels
from hv15.models.rope import rope_table
from tests.models.golden_dit import TINY

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")
from hv15.models import triton_kernels  # reads the variable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])

# Triton's interpreter does not multiply matrices of bfloat16.
PRODUCTS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def close(found: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[found.dtype]
    assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


@DTYPES
@pytest.mark.parametrize("rotates", [True, False])
def test_head_norm_and_its_gradient(dtype: torch.dtype, rotates: bool):
    """Three heads of 16 in tokens that lie apart in memory, written into a part of a larger tensor."""
    batch, tokens, heads, width = 2, 6, 3, 16
    x = random(batch, tokens, 5 * heads * width, dtype=dtype)[:, :, : heads * width].unflatten(-1, (heads, width))
    weight = random(width, dtype=dtype, seed=1)
    rope = rope_table((1, 2, 3), (4, 4, 8), 256.0, DEVICE) if rotates else None
    pairs = None if rope is None else torch.view_as_real(rope)
    grad = random(batch, tokens + 2, heads, width, dtype=dtype, seed=2)[:, :tokens]
    whole = torch.zeros(batch, tokens + 3, heads, width, dtype=dtype, device=DEVICE)
    expected = torch.empty_like(x, memory_format=torch.contiguous_format)
    scale = _torch(pass_kernels.head_norm, x, weight, rope, expected)
    found_scale = triton_kernels.head_norm(x, weight, pairs, whole[:, 2:-1])
    assert_close(found_scale, scale, atol=1e-6, rtol=1e-5)
    close(whole[:, 2:-1], expected)
    assert not whole[:, :2].any()
    assert not whole[:, -1:].any()
    d_x = _torch(pass_kernels.head_norm_backward, grad, x, scale, weight, rope)
    close(triton_kernels.head_norm_backward(grad, x, scale, weight, pairs), d_x)


@DTYPES
@pytest.mark.parametrize(("tokens", "width", "parts"), [(8, 24, 1), (8, 24, 5), (70, 280, 3)])
def test_gradient_of_a_gated_sum(dtype: torch.dtype, tokens: int, width: int, parts: int):
    """Parts that do not divide the tokens, below and above one reading, and a width that is no power of two."""
    grad = random(2, tokens + 1, width, dtype=dtype)[:, 1:]
    gate, y = random(2, 1, width, dtype=dtype, seed=1), random(2, tokens, width, dtype=dtype, seed=2)
    d_y, sums = triton_kernels.gated_sum_backward(grad, gate, y, parts)
    close(d_y, grad * gate)
    assert_close(sums.sum(1, keepdim=True), (grad.float() * y.float()).sum(1, keepdim=True), atol=1e-4, rtol=1e-5)


@PRODUCTS
@pytest.mark.parametrize(("tokens", "width", "rank"), [(5, 24, 3), (70, 136, 20)])
def test_gelu_of_a_layer_and_its_branch(dtype: torch.dtype, tokens: int, width: int, rank: int):
    x, grad = random(tokens, width, dtype=dtype), random(tokens, width, dtype=dtype, seed=1)
    hidden = random(tokens, rank + 2, dtype=dtype, seed=2)[:, 1:-1]
    up = random(width, rank, dtype=dtype, seed=3) / 4
    total = (x.float() + 0.5 * hidden.float() @ up.float().t()).requires_grad_()
    expected = F.gelu(total, approximate="tanh")
    expected.backward(grad.float())
    found = torch.empty_like(x)
    triton_kernels.gelu_low_rank(x, hidden, up, 0.5, found)
    assert total.grad is not None
    close(found, expected.detach())
    close(triton_kernels.gelu_low_rank_backward(grad, x, hidden, up, 0.5), total.grad)
    triton_kernels.gelu_low_rank(x, hidden, up, 0.5, x)
    assert torch.equal(x, found)


@PRODUCTS
@pytest.mark.parametrize(("tokens", "width", "rank"), [(5, 24, 3), (70, 136, 20)])
def test_gated_sum_of_a_layer_and_its_branch(dtype: torch.dtype, tokens: int, width: int, rank: int):
    x = random(2, tokens + 1, width, dtype=dtype)[:, 1:]
    gate, y = random(2, 1, width, dtype=dtype, seed=1), random(2 * tokens, width, dtype=dtype, seed=2)
    hidden, up = random(2 * tokens, rank, dtype=dtype, seed=3), random(width, rank, dtype=dtype, seed=4) / 4
    whole = torch.zeros(2, tokens + 2, width, dtype=dtype, device=DEVICE)
    triton_kernels.gated_low_rank(x, gate, y, hidden, up, 0.5, whole[:, 1:-1])
    sums = (y.float() + 0.5 * hidden.float() @ up.float().t()).unflatten(0, (2, tokens))
    close(whole[:, 1:-1], x.float() + gate.float() * sums)
    assert not whole[:, :1].any()
    assert not whole[:, -1:].any()


def test_a_kernel_is_started_on_the_gpu_of_its_tensors(monkeypatch: pytest.MonkeyPatch):
    """Triton takes torch's current GPU, which is another one with `runtime.device: cuda:1`."""
    current: list[Tensor] = []
    started: list[str] = []

    @contextmanager
    def device_of(x: Tensor) -> Iterator[None]:
        current.append(x)
        yield
        current.pop()

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            assert current, f"{self.name}: on the current GPU"
            return lambda *_, **__: started.append(self.name)

    names = [name for name, each in vars(triton_kernels).items() if name.startswith("_") and hasattr(each, "arg_names")]
    kernels = sorted(set(names) - {"_low_rank", "_sigmoid_of_gelu"})  # those two are parts of others
    for name in kernels:
        monkeypatch.setattr(triton_kernels, name, Kernel(name))
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    q, weight, x, up = random(1, 4, 2, 16), random(16), random(1, 4, 16), random(16, 2)
    scale = triton_kernels.head_norm(q, weight, None, q)
    triton_kernels.head_norm_backward(q, q, scale, weight, None)
    triton_kernels.gated_sum_backward(x, x[:, :1], x, 2)
    triton_kernels.gelu_low_rank(x[0], x[0, :, :2], up, 1.0, x[0])
    triton_kernels.gelu_low_rank_backward(x[0], x[0], x[0, :, :2], up, 1.0)
    triton_kernels.gated_low_rank(x, x[:, :1], x[0], x[0, :, :2], up, 1.0, x)
    assert sorted(started) == kernels
    assert len(kernels) == 6


def _torch(function: Callable[..., Tensor], *args: Tensor | None) -> Tensor:
    """Call a pass as it is computed where there is no Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pass_kernels, "ENABLED", False)
        return function(*args)


def test_a_training_step_with_all_kernels(monkeypatch: pytest.MonkeyPatch):
    """A small transformer in windows, checkpointed: velocity and gradients of the LoRA as with torch's operations."""
    if DEVICE == "cpu":
        for kernel, implementation in CPU_KERNELS.items():
            kernel.register_kernel("cpu", implementation)
    config = replace(TINY, num_blocks=2, hidden_size=32, num_heads=2, rope_dims=(4, 4, 8))
    torch.manual_seed(0)
    dit = DiT(config).to(DEVICE)
    network = LoRANetwork(dit, rank=3, alpha=6)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    dit.gradient_checkpointing, dit.most_tokens = True, 8
    x = random(1, config.in_channels, 3, 2, 2)
    cond = Condition(random(1, 5, config.text_dim), [5], torch.zeros(1, 0, config.glyph_dim, device=DEVICE), [0])
    results = []
    for enabled in (False, True):
        monkeypatch.setattr(pass_kernels, "one_kernel", lambda _x, enabled=enabled: enabled)
        network.zero_grad(set_to_none=True)
        velocity = dit(x, torch.full((1,), 500.0, device=DEVICE), cond)
        velocity.square().mean().backward()
        results.append([velocity.detach(), *(each.grad for each in network.parameters() if each.grad is not None)])
    assert len(results[0]) == len(results[1])
    for found, expected in zip(results[1], results[0], strict=True):
        assert_close(found, expected, atol=1e-6, rtol=1e-3)


CPU_KERNELS = {
    pass_kernels._head_norm: triton_kernels.head_norm,
    pass_kernels._head_norm_backward: triton_kernels.head_norm_backward,
    pass_kernels._gated_sum_backward: lambda grad, gate, y: triton_kernels.gated_sum_backward(grad, gate, y, 3),
    pass_kernels._gelu_low_rank: triton_kernels.gelu_low_rank,
    pass_kernels._gelu_low_rank_backward: triton_kernels.gelu_low_rank_backward,
    pass_kernels._gated_low_rank: triton_kernels.gated_low_rank,
}
