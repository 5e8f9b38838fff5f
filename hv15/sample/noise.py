"""The noise that a sample starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Draw the starting noise: float32 of `shape`, [B, C, F', h, w], on the CPU.

    As in the official program, the draw is made on the CPU, in bfloat16 and in one call, so that a seed gives the same
    video in both programs and on any device.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.bfloat16).float()
