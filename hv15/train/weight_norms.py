"""`scale_weight_norms`: no layer's weights change by more than a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class LayerChange(Protocol):
    """The trained change of one layer's weights (`hv15.lora.branches.Branch`)."""

    scale: float
    """The factor on the change."""

    @property
    def factors(self) -> Sequence[Tensor]:
        """The matrices of which the change is a product, of any shapes."""

    def squared_norm(self) -> Tensor:
        """Return the squared Frobenius norm, a scalar, of the change without `scale`."""


class NormLimit:
    """Keeps the Frobenius norm of each layer's change below `most` (kohya's max norm regularisation)."""

    def __init__(self, layers: Sequence[LayerChange], most: float) -> None:
        self.layers, self.most = layers, most
        self._scales = torch.tensor([layer.scale for layer in layers]).to(layers[0].factors[0].device)

    @torch.no_grad()
    def apply(self, good: Tensor) -> Tensor:
        """Scale the factors of larger changes down, each by the same root of the factor that is needed.

        Everything stays on the device.

        Args:
            good: a boolean scalar on the device; if it is false, nothing is scaled.

        Returns:
            fp32 [2]: the mean norm over all layers afterwards, and the share of layers that were scaled.
        """
        norms = torch.stack([layer.squared_norm() for layer in self.layers]).clamp(min=0).sqrt() * self._scales
        shrinking = (self.most / norms).clamp(max=1)  # a norm of 0 gives infinity, which becomes 1
        shrinking = torch.where(good, shrinking, torch.ones_like(shrinking))
        for count in {len(layer.factors) for layer in self.layers}:
            roots = zip(self.layers, shrinking.pow(1 / count).unbind(), strict=True)
            pairs = [(each, root) for layer, root in roots if len(layer.factors) == count for each in layer.factors]
            torch._foreach_mul_([factor for factor, _ in pairs], [root for _, root in pairs])
        return torch.stack([(norms * shrinking).mean(), (shrinking < 1).float().mean()])
