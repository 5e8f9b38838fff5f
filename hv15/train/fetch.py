"""Numbers of a step on their way from the device, so that nobody waits for the step that is running."""

from __future__ import annotations

import torch
from torch import Tensor


class Fetch:
    """Asks for a tensor's numbers at once and waits for them when they are read.

    On a GPU the copy is queued behind the tensor's own computation and lands in pinned memory, so reading it later
    waits for nothing that was queued after it.
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
        """Return the numbers of a tensor of one dimension."""
        if self._event is not None:
            self._event.synchronize()
        return list(self._numbers.tolist())
