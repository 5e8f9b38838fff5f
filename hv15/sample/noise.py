"""The noise that a sample starts from, and that of the latents that super resolution starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Draw the starting noise: float32 of `shape`, [B, C, F', h, w], on the CPU.

    As in the official program, the draw is made on the CPU, in bfloat16 and in one call, so that a seed gives the same
    video in both programs and on any device.
    """
    return _draws(shape, seed, 1)[0]


def low_resolution_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Draw the noise of enlarged latents: float32 of `shape`, [B, C, F', H, W], on the CPU.

    It is the draw after that of `initial_noise`, so the two are independent. The official program draws it, in bfloat16
    as well, from the device's global generator: there, the same seed gives another video each time.
    """
    return _draws(shape, seed, 2)[1]


def _draws(shape: Sequence[int], seed: int, count: int) -> list[Tensor]:
    """Return the first draws from a generator of this seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator, dtype=torch.bfloat16).float() for _ in range(count)]
