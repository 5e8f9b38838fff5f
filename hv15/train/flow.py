"""Flow matching: a straight line from the data (sigma 0) to noise (sigma 1), and the velocity along it.

x_sigma = (1 - sigma) * x0 + sigma * noise;  velocity = noise - x0. Sources: Lipman et al. 2022, Liu et al. 2022, and
the model's own training. All of it in fp32: the cast to the model's dtype comes after.
"""

from __future__ import annotations

from einops import reduce
from torch import Tensor


def noisy(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the point at `sigma` [B] on the line between scaled latents `x0` and `noise` (both [B, C, F, H, W])."""
    sigma = sigma.view(-1, *[1] * (x0.ndim - 1))
    return (1 - sigma) * x0 + sigma * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """Return what the model has to predict, [B, C, F, H, W]: from data to noise, the same at every sigma."""
    return noise - x0


def loss_per_sample(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each sample [B], computed in fp32."""
    return reduce((prediction.float() - target.float()).square(), "b c f h w -> b", "mean")
