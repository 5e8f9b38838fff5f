"""How one tensor is made from tensors of another layout of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """How to make one tensor: join the sources along rows, take chunk `index` of `count`, then swap its halves."""

    sources: tuple[str, ...]
    index: int = 0
    count: int = 1
    swap: bool = False

    @property
    def parts(self) -> int:
        """The number by which the rows of the sources must be divisible."""
        return 2 * self.count if self.swap else self.count

    def make(self, tensor: Callable[[str], Tensor]) -> Tensor:
        """Make the tensor [rows, ...] from its sources, which `tensor` returns by name."""
        import torch

        made = tensor(self.sources[0]) if len(self.sources) == 1 else torch.cat([tensor(key) for key in self.sources])
        made = made.chunk(self.count)[self.index]
        return torch.cat(made.chunk(2)[::-1]) if self.swap else made
