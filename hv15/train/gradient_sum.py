"""Sums gradients over all processes of a training, while the backward pass still computes others.

Gradients are put into buckets in the order in which a backward pass makes them: the last layers' first. When a bucket
is full, its sum is started, and the backward pass continues. Buckets are sent in a fixed order: else processes that
leave out different layers (`module_dropout`) would wait for each other's other sums for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from hv15.models.weights.no_data import has_no_data

BUCKET_BYTES = 16 << 20
"""Of a full bucket: large enough for a network's full speed, small enough to begin early."""


def all_reduce(tensor: Tensor) -> dist.Work | None:
    """Start to sum a tensor of any shape, in place, over all processes; in a plan nothing is sent."""
    return None if has_no_data(tensor) else dist.all_reduce(tensor, async_op=True)


@dataclass
class _Bucket:
    parameters: list[Parameter]
    missing: int = 0
    """Number of gradients that the backward pass has not made yet."""
    flat: Tensor | None = None
    """The gradients one after another, while they are summed, fp32 [n]."""
    work: dist.Work | None = None


@dataclass
class GradientSum:
    """Sums the gradients of parameters and other numbers over all processes of torch's default group.

    Args:
        parameters: all that are trained, in the order of the forward pass, the same on all processes.
        overlap: start sums during the backward pass. False sends the same buckets after it.
    """

    parameters: Sequence[Parameter]
    overlap: bool = True
    bucket_bytes: int = BUCKET_BYTES
    reduce: Callable[[Tensor], dist.Work | None] = all_reduce
    """Starts to sum a tensor in place."""
    _buckets: list[_Bucket] = field(default_factory=list, init=False)
    _of: dict[Parameter, _Bucket] = field(default_factory=dict, init=False)
    _is_last: bool = field(default=False, init=False)
    _sent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        size = self.bucket_bytes
        for parameter in reversed(self.parameters):
            if size >= self.bucket_bytes:
                self._buckets.append(_Bucket([]))
                size = 0
            self._buckets[-1].parameters.append(parameter)
            self._of[parameter] = self._buckets[-1]
            size += parameter.numel() * parameter.element_size()
            if self.overlap:
                parameter.register_post_accumulate_grad_hook(self._made)

    @contextmanager
    def backward(self, *, is_last: bool) -> Iterator[None]:
        """Enclose each backward pass of a step; during the last one, sums are started."""
        self._is_last = is_last
        if is_last:
            for bucket in self._buckets:
                bucket.missing = len(bucket.parameters)
        try:
            yield
        finally:
            self._is_last = False

    def finish(self) -> None:
        """Send what is left, and wait: then each parameter has the sum of all processes' gradients, zeros included."""
        while self._sent < len(self._buckets):
            self._send()
        for bucket in self._buckets:
            assert bucket.flat is not None
            if bucket.work is not None:
                bucket.work.wait()
            parts = bucket.flat.split([parameter.numel() for parameter in bucket.parameters])
            for parameter, part in zip(bucket.parameters, parts, strict=True):
                gradient = parameter.grad
                assert gradient is not None
                gradient.copy_(part.view_as(gradient))
            bucket.flat = bucket.work = None
        self._sent = 0

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of a tensor of any shape over all processes."""
        summed = numbers.clone()
        if (work := self.reduce(summed)) is not None:
            work.wait()
        return summed

    def _made(self, parameter: Tensor) -> None:
        """Called when the backward pass has made a gradient."""
        if not self._is_last or not isinstance(parameter, Parameter):
            return
        self._of[parameter].missing -= 1
        while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[self._sent]
        for parameter in bucket.parameters:
            if parameter.grad is None:  # a skipped layer, or the unused text stream of the last block
                parameter.grad = torch.zeros_like(parameter)
        bucket.flat = torch.cat([each.grad.flatten() for each in bucket.parameters if each.grad is not None])
        bucket.work = self.reduce(bucket.flat)
        self._sent += 1
