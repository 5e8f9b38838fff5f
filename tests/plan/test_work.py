"""Kernels, bytes and operations of code whose work can be counted by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hv15.models.fused_attention import fused_attention
from hv15.plan.meter import Meter
from hv15.plan.work import ATTENTION, CONVOLUTIONS, ELEMENTWISE, PRODUCTS, THIN, Work, extrapolate_work


def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_each_operator_by_its_tensors():
    """Views and memory that is only reserved are no work."""
    x, weight, bias = made(4096, 1024), made(1024, 1024), made(1024)
    with torch.no_grad(), Meter("meta") as meter:
        y = F.linear(x, weight, bias)
        z = F.gelu(y).view(64, 64, 1024).transpose(0, 1)[:32]
        torch.empty_like(z)
    assert meter.work == {
        PRODUCTS: Work(1, 4 * (2 * 4096 * 1024 + 1024 * 1024 + 1024), 2 * 4096 * 1024 * 1024),
        ELEMENTWISE: Work(1, 4 * 2 * 4096 * 1024, 0),
    }
    assert (meter.launches, meter.moved) == (2, sum(each.moved for each in meter.work.values()))


def test_a_narrow_product_waits_for_memory():
    """A LoRA's factor: 2 x 16 operations for each number that is read."""
    with torch.no_grad(), Meter("meta") as meter:
        made(4096, 1024, dtype=torch.bfloat16) @ made(1024, 16, dtype=torch.bfloat16)
    assert meter.work == {THIN: Work(1, 2 * (4096 * 1024 + 1024 * 16 + 4096 * 16), 2 * 4096 * 1024 * 16)}


def test_products_that_are_added_to_a_tensor_are_products():
    """So is the gradient of an input that several layers share."""
    a, b = made(4096, 1024), made(1024, 1024)
    with torch.no_grad(), Meter("meta") as meter:
        made(4096, 1024).addmm_(a, b)
        made(2, 4096, 1024).baddbmm_(a.expand(2, -1, -1), b.expand(2, -1, -1))
    assert meter.work.keys() == {PRODUCTS}
    assert meter.flops == 3 * 2 * 4096 * 1024 * 1024


def test_what_is_overwritten_is_not_read_and_what_is_expanded_is_read_once():
    target, source = made(100, 10), made(10)
    with Meter("meta") as meter:
        target.zero_()
        target.copy_(source.expand(100, 10))
        target.add_(source)
    assert meter.work == {ELEMENTWISE: Work(3, 4 * (1000 + (1000 + 10) + (2 * 1000 + 10)), 0)}


def test_attention_and_convolutions_are_kinds_of_their_own():
    q = made(1, 50, 2, 8).requires_grad_()
    with Meter("meta") as meter:
        out, _ = fused_attention(q, q, q)
        out.backward(torch.empty_like(out))
    attention = meter.work[ATTENTION]
    assert attention.launches == 2
    assert attention.flops == (4 + 10) * 50**2 * 2 * 8
    with torch.no_grad(), Meter("meta") as meter:
        F.conv3d(made(1, 3, 5, 6, 7), made(4, 3, 1, 1, 1))
    assert meter.work == {CONVOLUTIONS: Work(1, 4 * (210 * 3 + 12 + 210 * 4), 2 * 210 * 3 * 4)}


def test_only_the_device_works():
    """What the host computes beside it takes none of its time."""
    with Meter("meta") as meter:
        torch.linspace(0, 1, 50) * 2
    assert meter.work == {}


def test_more_of_the_same():
    few, more = {PRODUCTS: Work(3, 30, 300), THIN: Work(1, 1, 1)}, {PRODUCTS: Work(5, 40, 400), THIN: Work(1, 1, 1)}
    assert extrapolate_work(few, more, 10) == {PRODUCTS: Work(23, 130, 1300), THIN: Work(1, 1, 1)}
