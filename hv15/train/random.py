"""Random draws of a training, each with its own generator that is determined by (seed, purpose, index).

So no generator state has to be saved: a resumed run makes the same draws as an uninterrupted one, and the draws of a
sample depend neither on the number of processes nor on its batch.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_for(seed: int, purpose: str, index: int) -> int:
    """Return a 63-bit seed that is a hash of the arguments, so that similar arguments give unrelated seeds.

    `index` is the global index of a sample, micro-batch or step, depending on the purpose.
    """
    name = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(name[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """Return the generator of one draw, on the CPU, so that draws are equal on all devices."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, index))


def noise(shape: tuple[int, ...], seed: int, sample: int) -> Tensor:
    """Return fp32 Gaussian noise of this shape for the sample with this global index."""
    return torch.randn(shape, generator=generator(seed, "noise", sample))


def chance(probability: float, seed: int, purpose: str, index: int) -> bool:
    """Return True with this probability: never for 0, always for 1."""
    return torch.rand((), generator=generator(seed, purpose, index)).item() < probability


def choice(count: int, seed: int, purpose: str, index: int) -> int:
    """Return one of the numbers from 0 to `count` - 1, all equally likely."""
    return seed_for(seed, purpose, index) % count
