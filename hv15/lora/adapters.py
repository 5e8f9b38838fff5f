"""The kinds of weight changes that a LoRA file can hold, each for one linear layer.

Every kind knows its fp32 difference (out, in), how to keep some of its output rows, and its tensors. Tensors are never
cast or copied unless arithmetic is needed; then the result is fp32.

LoRA (Hu et al. 2021): up @ down * alpha/rank. LoHa (Hyeon-Woo et al. 2022): (w1_a @ w1_b) * (w2_a @ w2_b) * alpha/rank.
LoKr (Yeh et al. 2024): kron(w1, w2) * alpha/rank, where w1 and w2 may each be a product of two factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """LoRA: down (rank, in), up (out, rank)."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> Tensor:
        """The weight difference (out, in), fp32."""
        return (self.up.float() @ self.down.float()) * self.scale

    def rows(self, index: slice | Tensor) -> LowRank:
        """The same change for some output rows only."""
        return replace(self, up=self.up[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {
            "lora_down.weight": self.down,
            "lora_up.weight": self.up,
            "alpha": alpha_tensor(self.alpha),
        }


@dataclass(frozen=True)
class Hadamard:
    """LoHa: w1_a, w2_a (out, rank), w1_b, w2_b (rank, in)."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.w1_a.shape[0], self.w1_b.shape[1]

    def delta(self) -> Tensor:
        return (self.w1_a.float() @ self.w1_b.float()) * (self.w2_a.float() @ self.w2_b.float()) * self.scale

    def rows(self, index: slice | Tensor) -> Hadamard:
        return replace(self, w1_a=self.w1_a[index].contiguous(), w2_a=self.w2_a[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {
            "hada_w1_a": self.w1_a,
            "hada_w1_b": self.w1_b,
            "hada_w2_a": self.w2_a,
            "hada_w2_b": self.w2_b,
            "alpha": alpha_tensor(self.alpha),
        }


@dataclass(frozen=True)
class Kronecker:
    """LoKr: each side is one matrix, or a pair of factors whose product it is."""

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    alpha: float

    @property
    def scale(self) -> float:
        """alpha/rank, as LyCORIS and ComfyUI count: the rank of a factored side; 1 where neither is factored."""
        for side in (self.w1, self.w2):
            if len(side) == 2:
                return self.alpha / side[0].shape[1]
        return 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.w1[0].shape[0] * self.w2[0].shape[0], self.w1[-1].shape[1] * self.w2[-1].shape[1]

    def delta(self) -> Tensor:
        return torch.kron(_product(self.w1), _product(self.w2)) * self.scale

    def rows(self, index: slice | Tensor) -> Difference:
        return Difference(self.delta()[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"alpha": alpha_tensor(self.alpha)}
        for name, side in (("lokr_w1", self.w1), ("lokr_w2", self.w2)):
            suffixes = ("",) if len(side) == 1 else ("_a", "_b")
            tensors |= {name + suffix: tensor for suffix, tensor in zip(suffixes, side, strict=True)}
        return tensors


@dataclass(frozen=True)
class Difference:
    """The full difference (out, in) of a weight."""

    diff: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.diff.shape[0], self.diff.shape[1]

    def delta(self) -> Tensor:
        return self.diff.float()

    def rows(self, index: slice | Tensor) -> Difference:
        return Difference(self.diff[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {"diff": self.diff}


Adapter = LowRank | Hadamard | Kronecker | Difference


def alpha_tensor(alpha: float) -> Tensor:
    """Alpha as files hold it: a scalar, fp32 where that is exact and fp64 otherwise (readers take `.item()`)."""
    single = torch.tensor(alpha, dtype=torch.float32)
    return single if single.item() == alpha else torch.tensor(alpha, dtype=torch.float64)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """Multiply; the dtype stays where no bit is lost by it (a factor that is a power of two), else it becomes fp32."""
    if factor == 1.0:
        return tensor
    exact = tensor * factor if abs(math.frexp(factor)[0]) == 0.5 else None
    if exact is not None and torch.equal(exact.double(), tensor.double() * factor):
        return exact
    return tensor.float() * factor


def swap_halves(adapter: Adapter) -> Adapter:
    """The two halves of the output rows change places."""
    rows = adapter.shape[0]
    return adapter.rows(torch.arange(rows).roll(rows // 2))


def low_rank_of(adapter: Adapter, rank: int) -> tuple[LowRank, float]:
    """The best LoRA of a rank (truncated SVD), and its relative error (Frobenius norm)."""
    delta = adapter.delta()
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    rank = min(rank, len(values))
    root = values[:rank].sqrt()
    adapter = LowRank((root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous(), float(rank))
    norm = values.norm().item()
    return adapter, values[rank:].norm().item() / norm if norm else 0.0


def _product(factors: Sequence[Tensor]) -> Tensor:
    matrices = [factor.float() for factor in factors]
    return (matrices[0] if len(matrices) == 1 else matrices[0] @ matrices[1]).contiguous()
