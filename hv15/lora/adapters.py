"""The kinds of weight changes in LoRA files that do not depend on the weight; each changes one linear layer.

Each kind can return its fp32 difference (out, in), a part of its output rows, and its tensors. Tensors are cast or
copied only where arithmetic is needed; the result is then fp32.

LoRA (Hu et al. 2021): up @ down * alpha/rank. LoHa (Hyeon-Woo et al. 2022): (w1_a @ w1_b) * (w2_a @ w2_b) * alpha/rank.
LoKr (Yeh et al. 2024): kron(w1, w2) * alpha/rank, where w1 and w2 may each be a product of two factors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


class RowChange(ABC):
    """A change of a weight (out, in) that changes each output row independently of the others.

    So it can be divided and joined by rows, as the layouts of files require.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @abstractmethod
    def rows(self, index: slice | Tensor) -> RowChange:
        """Return the same change for some output rows only: a slice, or row numbers [n]."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a file by part, including alpha, as kohya and LyCORIS name them."""

    @abstractmethod
    def to(self, device: torch.device) -> RowChange:
        """Return the same change with its tensors on a device."""

    @abstractmethod
    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return the changed weight; weight and result are (out, in), fp32, on one device."""


class Adapter(RowChange):
    """A change that is added to a weight (out, in), with alpha/rank applied."""

    @abstractmethod
    def delta(self) -> Tensor:
        """Return the weight difference (out, in), fp32."""

    @abstractmethod
    def rows(self, index: slice | Tensor) -> Adapter: ...

    @abstractmethod
    def to(self, device: torch.device) -> Adapter: ...

    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return weight + multiplier * difference; weight and result are (out, in), fp32, on one device."""
        return torch.add(weight, self.to(weight.device).delta(), alpha=multiplier)


@dataclass(frozen=True)
class LowRank(Adapter):
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
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> Tensor:
        return (self.up.float() @ self.down.float()) * self.scale

    def rows(self, index: slice | Tensor) -> LowRank:
        return replace(self, up=self.up[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {
            "lora_down.weight": self.down,
            "lora_up.weight": self.up,
            "alpha": alpha_tensor(self.alpha),
        }

    def to(self, device: torch.device) -> LowRank:
        return replace(self, down=self.down.to(device), up=self.up.to(device))


@dataclass(frozen=True)
class Hadamard(Adapter):
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

    def to(self, device: torch.device) -> Hadamard:
        w1_a, w1_b, w2_a, w2_b = (factor.to(device) for factor in (self.w1_a, self.w1_b, self.w2_a, self.w2_b))
        return Hadamard(w1_a, w1_b, w2_a, w2_b, self.alpha)


@dataclass(frozen=True)
class Kronecker(Adapter):
    """LoKr: w1 (a, b) and w2 (c, d), out = a*c, in = b*d; each is one matrix, or two factors whose product it is."""

    w1: tuple[Tensor, ...]
    w2: tuple[Tensor, ...]
    alpha: float

    @property
    def scale(self) -> float:
        """alpha/rank as in LyCORIS and ComfyUI, with the rank of the factored side; 1 if neither side is factored."""
        for side in (self.w1, self.w2):
            if len(side) == 2:
                return self.alpha / side[0].shape[1]
        return 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.w1[0].shape[0] * self.w2[0].shape[0], self.w1[-1].shape[1] * self.w2[-1].shape[1]

    def delta(self) -> Tensor:
        return torch.kron(product(self.w1), product(self.w2)) * self.scale

    def rows(self, index: slice | Tensor) -> Adapter:
        """Return a LoKr if the rows are whole blocks of w2 in order (keeps rows of w1); else a difference [n, in]."""
        height = self.w2[0].shape[0]
        numbers = torch.arange(self.shape[0])[index]
        if numbers.numel() % height == 0:
            blocks = numbers.reshape(-1, height)
            kept = blocks[:, 0] // height
            if torch.equal(blocks, kept[:, None] * height + torch.arange(height)):
                return replace(self, w1=(self.w1[0][kept.to(self.w1[0].device)], *self.w1[1:]))
        return Difference(self.delta()[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"alpha": alpha_tensor(self.alpha)}
        for name, side in (("lokr_w1", self.w1), ("lokr_w2", self.w2)):
            suffixes = ("",) if len(side) == 1 else ("_a", "_b")
            tensors |= {name + suffix: tensor for suffix, tensor in zip(suffixes, side, strict=True)}
        return tensors

    def to(self, device: torch.device) -> Kronecker:
        w1, w2 = (tuple(factor.to(device) for factor in side) for side in (self.w1, self.w2))
        return Kronecker(w1, w2, self.alpha)


@dataclass(frozen=True)
class Difference(Adapter):
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

    def to(self, device: torch.device) -> Difference:
        return Difference(self.diff.to(device))


def alpha_tensor(alpha: float) -> Tensor:
    """Return alpha as a scalar tensor for a file: fp32 if that is exact, else fp64 (readers use `.item()`)."""
    single = torch.tensor(alpha, dtype=torch.float32)
    return single if single.item() == alpha else torch.tensor(alpha, dtype=torch.float64)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """Return tensor * factor, of any shape, in the tensor's dtype if that is exact (a power of two), else in fp32."""
    if factor == 1.0:
        return tensor
    exact = tensor * factor if abs(math.frexp(factor)[0]) == 0.5 else None
    if exact is not None and torch.equal(exact.double(), tensor.double() * factor):
        return exact
    return tensor.float() * factor


def cast_up(tensor: Tensor) -> Tensor:
    """Cast an 8-bit floating tensor of any shape to bf16, which is exact and which torch can compute with.

    Tensors of other dtypes are returned unchanged.
    """
    return tensor.bfloat16() if tensor.is_floating_point() and tensor.dtype.itemsize == 1 else tensor


def product(factors: Sequence[Tensor]) -> Tensor:
    """Return one matrix, or the product of two (rows, rank) and (rank, columns), as (rows, columns) in fp32."""
    matrices = [factor.float() for factor in factors]
    return (matrices[0] if len(matrices) == 1 else matrices[0] @ matrices[1]).contiguous()


def swap_halves(change: RowChange) -> RowChange:
    """Return the change (out, in) with the two halves of its output rows swapped."""
    rows = change.shape[0]
    return change.rows(torch.arange(rows).roll(rows // 2))


def low_rank_of(adapter: Adapter, rank: int) -> tuple[LowRank, float]:
    """Approximate a change (out, in) by the nearest LoRA of a rank, by truncated SVD.

    Returns:
        The LoRA, and its relative error (Frobenius norm).
    """
    delta = adapter.delta()
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    rank = min(rank, len(values))
    root = values[:rank].sqrt()
    adapter = LowRank((root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous(), float(rank))
    norm = values.norm().item()
    return adapter, values[rank:].norm().item() / norm if norm else 0.0
