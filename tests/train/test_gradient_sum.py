"""Sums over processes: each gradient once, in an order that is the same everywhere, and as early as can be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from hv15.train.gradient_sum import GradientSum

pytestmark = pytest.mark.numeric

SIZES = [(3,), (2, 2), (5,), (1,), (4, 3)]


def parameters() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(size, generator=generator)) for size in SIZES]


def chain(used: list[Parameter]) -> Tensor:
    """A scalar whose backward pass reaches the last parameters first."""
    total = torch.ones(())
    for parameter in used:
        total = (total + parameter.sum()).sin()
    return total


class Twice:
    """Stands in for two processes with equal gradients; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[Tensor] = []

    def __call__(self, tensor: Tensor) -> None:
        self.sent.append(tensor.clone())
        tensor.mul_(2)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("bucket_bytes", [1, 20, 48, 1 << 20])
def test_each_gradient_is_summed_once_over_all_micro_batches(bucket_bytes: int, overlap: bool) -> None:
    plain, summed, reduce = parameters(), parameters(), Twice()
    sums = GradientSum(summed, overlap=overlap, bucket_bytes=bucket_bytes, reduce=reduce)
    for _ in range(2):  # steps
        for each in (*plain, *summed):
            each.grad = None
        for number in range(3):  # micro-batches
            (chain(plain) * (number + 1)).backward()
            with sums.backward(is_last=number == 2):
                (chain(summed) * (number + 1)).backward()
        sums.finish()
        for expected, found in zip(plain, summed, strict=True):
            assert expected.grad is not None
            assert found.grad is not None
            torch.testing.assert_close(found.grad, 2 * expected.grad)
    assert sum(tensor.numel() for tensor in reduce.sent) == 2 * sum(each.numel() for each in plain)


def test_sums_begin_while_the_backward_pass_goes_on() -> None:
    summed, events = parameters(), list[str]()
    summed[0].register_post_accumulate_grad_hook(lambda _: events.append("the first layer's gradient"))
    sums = GradientSum(summed, bucket_bytes=1, reduce=lambda tensor: events.append(f"sum of {tensor.numel()}"))
    with sums.backward(is_last=True):
        chain(summed).backward()
    assert events[0] == "sum of 12"
    assert events.index("the first layer's gradient") == 4
    sums.finish()
    assert len(events) == len(SIZES) + 1


@pytest.mark.parametrize("left_out", [{0}, {4}, {1, 3}, {0, 1, 2, 3, 4}])
def test_the_order_is_the_same_whatever_is_left_out(left_out: set[int]) -> None:
    """Processes leave out different layers; what was left out is sent as zeros."""
    summed, reduce = parameters(), Twice()
    sums = GradientSum(summed, bucket_bytes=1, reduce=reduce)
    with sums.backward(is_last=True):
        used = [parameter for number, parameter in enumerate(summed) if number not in left_out]
        (chain(used) if used else torch.ones((), requires_grad=True)).backward()
    sums.finish()
    assert [tensor.numel() for tensor in reduce.sent] == [parameter.numel() for parameter in reversed(summed)]
    for number, parameter in enumerate(summed):
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == (number not in left_out)
