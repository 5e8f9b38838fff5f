"""The running mean of a loss."""

from __future__ import annotations

import math

from hv15.records.metrics import SMOOTHING


class SmoothedLoss:
    """A running mean that is not biased towards zero at its start."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def update(self, loss: float | None) -> float:
        """Take a loss, unless there is none; return the mean, NaN before the first loss."""
        if loss is not None:
            self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return self._sum / self._weight if self._weight else math.nan
