"""Tensors without data: of the meta device, and torch's fake ones."""

from __future__ import annotations

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_no_data(tensor: Tensor) -> bool:
    """Whether the tensor, of any shape, is on the meta device or fake: it has no values."""
    return tensor.device.type == "meta" or isinstance(tensor, FakeTensor)
