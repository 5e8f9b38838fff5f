"""The reference in 16 bits: exact products, rounded once, in each form that networks use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from hv15.models.fused_attention import fused_attention
from hv15.selftest.rounded import RoundedProducts, rounded_attention

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def written(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = x.new_empty(x.shape[0], weight.shape[0])
    return torch.addmm(bias, x, weight.t(), out=out)


@HALF
@pytest.mark.parametrize(
    "run",
    [
        lambda x, weight, bias: F.linear(x, weight, bias),
        lambda x, weight, bias: bias.expand(7, -1).clone().addmm_(x, weight.t()),
        lambda x, weight, bias: (x[None] @ weight.t()[None])[0] + 0 * bias,
        written,
    ],
    ids=["linear", "in place", "batched", "out"],
)
def test_a_product_is_the_exact_one_rounded_once(
    run: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    x, weight, bias = numbers(7, 300, dtype=dtype), numbers(5, 300, dtype=dtype, seed=1), torch.zeros(5, dtype=dtype)
    with RoundedProducts():
        found = run(x, weight, bias)
    exact = x.double() @ weight.double().t()
    assert found.dtype == dtype
    assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps / 2, atol=1e-4)
    assert not torch.equal(found.double(), exact)


@HALF
def test_a_convolution_and_its_gradients(dtype: torch.dtype) -> None:
    """As torch's own in fp32 on the same numbers, rounded."""
    given = [numbers(1, 4, 3, 5, 5, dtype=dtype), numbers(6, 4, 2, 3, 3, dtype=dtype, seed=1)]
    upstream = numbers(1, 6, 2, 3, 3, dtype=dtype, seed=2)

    def run(convert: Callable[[Tensor], Tensor]) -> list[Tensor]:
        leaves = [convert(each).detach().requires_grad_() for each in given]
        out = F.conv3d(leaves[0], leaves[1])
        return [out.detach(), *torch.autograd.grad(out, leaves, convert(upstream))]

    with RoundedProducts():
        found = run(lambda each: each)
    for each, exact in zip(found, run(lambda each: each.float()), strict=True):
        assert torch.equal(each, exact.to(dtype))


def test_attention_that_has_nothing_to_round_is_the_definition() -> None:
    q, k, v = (numbers(2, 9, 2, 8, dtype=torch.float32, seed=seed).requires_grad_() for seed in range(3))
    upstream = numbers(2, 9, 2, 8, dtype=torch.float32, seed=3)
    found, exact = rounded_attention(q, k, v), fused_attention(q, k, v)[0]
    assert_close(found, exact)
    assert_close(torch.autograd.grad(found, (q, k, v), upstream), torch.autograd.grad(exact, (q, k, v), upstream))


def test_attention_rounds_weights_and_the_gradients_of_scores() -> None:
    """Beside the result: so each of its results differs by more than one rounding."""
    dtype = torch.bfloat16
    *given, upstream = (numbers(1, 200, 1, 64, dtype=dtype, seed=seed) for seed in range(4))

    def run(attend: Callable[..., Tensor], convert: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [each.to(convert).requires_grad_() for each in given]
        out = attend(*leaves)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(convert))

    exact = run(rounded_attention, torch.float32)
    for found, wanted in zip(run(rounded_attention, dtype), exact, strict=True):
        once = (wanted.to(dtype).float() - wanted).norm()
        assert 1.1 * once < (found.float() - wanted).norm() < 2 * once
