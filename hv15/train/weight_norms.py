"""`scale_weight_norms`: no layer's weights change by more than a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """The LoRA of one layer; it changes the layer's weights by up @ down * scale."""

    down: Tensor
    """(rank, in)"""
    up: Tensor
    """(out, rank)"""
    scale: float


class NormLimit:
    """Keeps the Frobenius norm of each layer's change below `most` (kohya's max norm regularisation)."""

    def __init__(self, layers: Sequence[Factors], most: float) -> None:
        self.layers, self.most = layers, most
        self._scales = torch.tensor([layer.scale for layer in layers]).to(layers[0].down.device)

    @torch.no_grad()
    def apply(self) -> Tensor:
        """Scale the factors of larger changes down, both by the square root of what is too much.

        Everything stays on the device. The change itself, (out, in), is never computed: its squared norm is the sum of
        (up^T up) * (down down^T), which are (rank, rank).

        Returns:
            fp32 [2]: the mean norm over all layers afterwards, and the share of layers that were scaled.
        """
        products = torch.stack([(up.t() @ up) * (down @ down.t()) for down, up, _ in self.layers])
        norms = products.sum((1, 2)).clamp(min=0).sqrt() * self._scales
        shrinking = (self.most / norms).clamp(max=1)  # a norm of 0 gives infinity, which becomes 1
        roots = list(shrinking.sqrt().unbind())
        for factors in ([layer.down for layer in self.layers], [layer.up for layer in self.layers]):
            torch._foreach_mul_(factors, roots)
        return torch.stack([(norms * shrinking).mean(), (shrinking < 1).float().mean()])
