"""Every random draw of a training has its own generator, named by (seed, purpose, index): no stream has to be saved.

So a resumed run draws what an uninterrupted one would have drawn, and the draws of a sample depend neither on the
number of processes nor on the batch it happens to be in.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_for(seed: int, purpose: str, index: int) -> int:
    """Return a 63-bit seed that is a hash of the three: neighbours in any of them are unrelated.

    `index` is the global sample, micro-batch or step index, whichever the purpose counts in.
    """
    name = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(name[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """Return the CPU generator of one draw. Draws are made on the CPU, so that they are equal on every device."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, index))


def noise(shape: tuple[int, ...], seed: int, sample: int) -> Tensor:
    """Return the fp32 Gaussian noise of one sample, of the given shape, named by its global index."""
    return torch.randn(shape, generator=generator(seed, "noise", sample))


def chance(probability: float, seed: int, purpose: str, index: int) -> bool:
    """Return True with the given probability; at 0 never, at 1 always."""
    return torch.rand((), generator=generator(seed, purpose, index)).item() < probability
