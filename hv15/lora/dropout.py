"""Dropout of a LoRA: masks that depend only on (step seed, module name), so that recomputation draws the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from hv15.models.windows import current_window


class Dropouts:
    """Dropout of a network, shared by its branches; masks depend only on (step seed, module name)."""

    def __init__(self, dropout: float, rank_dropout: float, module_dropout: float) -> None:
        self.dropout, self.rank_dropout, self.module_dropout = dropout, rank_dropout, module_dropout
        self.step_seed: int | None = None
        self.skips, self.mask = self._skips, self._masked
        if dropout or rank_dropout or module_dropout:
            # Kept out of compiled code, where a step's seed would be a constant, so that each step would compile again.
            # Not done by decorators, which would always import the compiler: that takes a second.
            self.skips, self.mask = torch.compiler.disable(self._skips), torch.compiler.disable(self._masked)

    def _skips(self, name: str) -> bool:
        """Whether module dropout skips this module in this step; decided on the CPU, so without a sync."""
        return seed_of(self._seed_of_step(), f"{name}/module") / 2**63 < self.module_dropout

    def _masked(self, hidden: Tensor, name: str) -> Tensor:
        """Apply dropout and rank dropout to hidden (batch, ..., rank), the output of `down`, rescaled to keep the mean.

        A window of tokens gets its part of the mask of all tokens.
        """
        generator = torch.Generator(hidden.device).manual_seed(seed_of(self._seed_of_step(), name))
        if self.dropout:
            window = current_window() if hidden.ndim == 3 else None
            if window is None:
                mask = _mask(hidden.shape, self.dropout, hidden, generator)
            else:
                whole = (hidden.shape[0], window.total, hidden.shape[2])
                mask = _mask(whole, self.dropout, hidden, generator)[:, window.slice]
            hidden = hidden * mask
        if self.rank_dropout:
            shape = (hidden.shape[0], *[1] * (hidden.ndim - 2), hidden.shape[-1])
            hidden = hidden * _mask(shape, self.rank_dropout, hidden, generator)
        return hidden

    def _seed_of_step(self) -> int:
        if self.step_seed is None:
            raise RuntimeError("dropout needs set_step_seed before the forward pass")
        return self.step_seed


def seed_of(seed: int, name: str) -> int:
    """Return 63 bits that depend only on both arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


def _mask(shape: Sequence[int], probability: float, like: Tensor, generator: torch.Generator) -> Tensor:
    kept = torch.rand(tuple(shape), generator=generator, device=like.device) >= probability
    return kept.to(like.dtype) / (1 - probability)
