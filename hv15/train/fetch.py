"""Copies a step's numbers from the device without waiting for the step that is running."""

from __future__ import annotations

import torch
from torch import Tensor


class Fetch:
    """Queues a copy of a tensor's numbers immediately, and waits for it when they are read.

    On a GPU the copy is queued after the tensor's own computation and goes to pinned memory, so reading it does not
    wait for anything that was queued later.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._numbers = numbers
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        """Return the numbers of the tensor, which has one dimension."""
        if self._event is not None:
            self._event.synchronize()
        return list(self._numbers.tolist())
