"""Flow matching: a straight line from the data (sigma 0) to noise (sigma 1), and the velocity along it.

x_sigma = (1 - sigma) * x0 + sigma * noise;  velocity = noise - x0. Sources: Lipman et al. 2022, Liu et al. 2022, and
the model's own training. Everything is computed in fp32 and cast to the model's dtype afterwards.
"""

from __future__ import annotations

from torch import Tensor


def noisy(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the point at `sigma` [B] on the line between scaled latents `x0` and `noise` (both [B, C, F, H, W])."""
    sigma = sigma.view(-1, *[1] * (x0.ndim - 1))
    return (1 - sigma) * x0 + sigma * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity that the model has to predict, the same for all sigmas; all are [B, C, F, H, W]."""
    return noise - x0
