"""Sums of low-rank changes and their best approximation, computed from the factors: no full matrix is made.

The truncated singular value decomposition is the nearest matrix of its rank (Eckart and Young 1936). Of up @ down it
follows from the QR decompositions of both factors and the decomposition of a matrix of the rank's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hv15.lora.adapters import Adapter, Difference, LowRank

_OVERSAMPLING, _PASSES = 16, 4
"""Of the randomised decomposition of a full matrix (Halko et al. 2011)."""


@dataclass
class Loss:
    """What approximations lost, relative to what there was (Frobenius norms)."""

    squared_error: float = 0.0
    squared_norm: float = 0.0
    worst: float = 0.0
    worst_part: str = ""

    def add(self, part: str, squared_error: float, squared_norm: float) -> None:
        """Count one layer."""
        self.squared_error += max(squared_error, 0.0)
        self.squared_norm += squared_norm
        relative = math.sqrt(max(squared_error, 0.0) / squared_norm) if squared_norm else 0.0
        if relative > self.worst or not self.worst_part:
            self.worst, self.worst_part = relative, part

    @property
    def relative(self) -> float:
        """The error of all layers together."""
        return math.sqrt(self.squared_error / self.squared_norm) if self.squared_norm else 0.0

    def told(self, what: str) -> str:
        """Return it in words."""
        if not self.squared_error:
            return f"{what}: exact"
        return f"{what}: relative error {self.relative:.2e}, at most {self.worst:.2e} ({self.worst_part})"


def summed(terms: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Return the weighted sum of changes (out, in) of one layer: if all are LoRAs, a LoRA, exact by concatenation."""
    loras = [(term, weight) for term, weight in terms if isinstance(term, LowRank)]
    if len(loras) == len(terms):
        downs = torch.cat([term.down.float() for term, _ in loras])
        ups = torch.cat([term.up.float() * (term.scale * weight) for term, weight in loras], dim=1)
        return LowRank(downs, ups, float(len(downs)))
    first, weight = terms[0]
    total = first.delta() * weight
    for term, weight in terms[1:]:
        total.add_(term.delta(), alpha=weight)
    return Difference(total)


def nearest(adapter: Adapter, rank: int | None = None, energy: float | None = None) -> tuple[LowRank, float, float]:
    """Return the nearest LoRA of a rank, or of the smallest rank that keeps a share of the energy.

    Args:
        rank: the highest rank; None for no limit.
        energy: the share of the squared norm to keep, up to 1; None for all.

    Returns:
        The LoRA with alpha = rank, its squared error and the squared norm of the change.
    """
    delta = None if isinstance(adapter, LowRank) else adapter.delta()
    if isinstance(adapter, LowRank):
        left, values, right = _decomposed_lora(adapter)
        norm = values.double().square().sum().item()
    else:
        assert delta is not None
        norm = delta.double().square().sum().item()
        left, values, right = _decomposed(delta, rank if energy is None else None)
    kept = len(values) if rank is None else min(rank, len(values))
    if energy is not None:
        reached = values.double().square().cumsum(0) >= energy * norm * (1 - 1e-7)
        kept = min(kept, int(reached.logical_not().sum()) + 1)
    root = values[:kept].sqrt()
    down, up = (root[:, None] * right[:kept]).contiguous(), (left[:, :kept] * root).contiguous()
    lost = values[kept:] if delta is None else delta - up @ down
    return LowRank(down, up, float(kept)), lost.double().square().sum().item(), norm


def inner_product(one: Adapter, other: Adapter) -> float:
    """Return the sum over all elements of the product of two changes (out, in), in fp64."""
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        ups = one.up.double().t() @ other.up.double()  # (rank, rank)
        downs = one.down.double() @ other.down.double().t()
        return (ups * downs).sum().item() * one.scale * other.scale
    return float(torch.vdot(one.delta().double().flatten(), other.delta().double().flatten()))


def total_rank(adapters: Iterable[Adapter]) -> int | None:
    """Return the rank that all of them have; None if they differ or are no LoRAs."""
    ranks = {adapter.rank if isinstance(adapter, LowRank) else None for adapter in adapters}
    return ranks.pop() if len(ranks) == 1 else None


def _decomposed_lora(adapter: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Return (out, k), [k] and (k, in), whose product it is."""
    left, upper = torch.linalg.qr(adapter.up.float())
    right, lower = torch.linalg.qr(adapter.down.float().t())
    inner, values, outer = torch.linalg.svd(upper @ lower.t() * adapter.scale, full_matrices=False)
    return left @ inner, values, outer @ right.t()


def _decomposed(delta: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    small = min(delta.shape)
    if rank is None or 4 * (rank + _OVERSAMPLING) >= small:
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return left, values, right
    with torch.random.fork_rng(devices=()):  # equal input gives equal files
        torch.manual_seed(0)
        left, values, columns = torch.svd_lowrank(delta, q=rank + _OVERSAMPLING, niter=_PASSES)
    return left, values, columns.t()
