"""The relative error of many tensors together, added up while a file is written."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class RelativeError:
    """Adds up what tensors lose."""

    def __init__(self) -> None:
        self._squared_error = self._squared_norm = 0.0

    def add(self, found: Tensor, exact: Tensor) -> None:
        """Count a tensor; both have any one shape, and `exact` is fp32."""
        self._squared_error += (found.float() - exact).square().sum(dtype=torch.float64).item()
        self._squared_norm += exact.square().sum(dtype=torch.float64).item()

    @property
    def value(self) -> float:
        """The norm of all errors, divided by that of all tensors (Frobenius); 0 if there are none."""
        return math.sqrt(self._squared_error / self._squared_norm) if self._squared_norm else 0.0
