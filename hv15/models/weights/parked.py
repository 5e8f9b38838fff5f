"""Makes room on the GPU for a while: frozen modules wait in CPU memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def parked(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Move modules from the device into CPU memory, and back at the end; on the CPU nothing is moved."""
    if device.type == "cpu":
        yield
        return
    try:
        for module in modules:
            module.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the VAE needs other sizes than the blocks
        yield
    finally:
        for module in modules:
            module.to(device)
