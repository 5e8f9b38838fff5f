"""Losses of a sample's error, all equal to its mean square where the error is small beside `huber_c`.

Errors are those of the predicted velocity, in fp32. The loss that is recorded is always the mean square, without
weights by noise level, so that trainings with other losses and weights can be compared.

With a mask, each of these means is the weighted mean over the positions: sum(mask * loss) / sum(mask). So a small
masked area counts as much as a whole picture, and a mask of one value counts as none. Under a mask of zeros it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from hv15.config.training.loss import LossSettings


class Losses(NamedTuple):
    """The losses of a micro-batch, fp32 [B]."""

    minimised: Tensor
    recorded: Tensor
    """Without gradients."""


@dataclass(frozen=True)
class LossFunction:
    """The loss that these settings choose."""

    settings: LossSettings

    def __call__(self, error: Tensor, sigma: Tensor, mask: Tensor | None = None) -> Losses:
        """Return the losses of errors, fp32 [B, C, F, H, W], at `sigma` [B], under a mask [B, F, H, W].

        - mse: the mean of e^2.
        - huber: e^2 up to |e| = c, then 2c|e| - c^2: twice Huber's loss (torch.nn.functional.huber_loss, delta = c).
        - pseudo_huber: 2c * (sqrt(e^2 + c^2) - c), as in Khrapov et al. 2024 ("Improving Diffusion Models's
          Data-Corruption Resistance using Scheduled Pseudo-Huber Loss").
        - smooth_l1, smooth_pseudo_huber: these divided by c, which tend to 2|e|.
        """
        if self.settings.loss_type == "mse":
            loss = mean_square(error, mask)
            return Losses(loss, loss.detach())
        c = self.corner(sigma).view(-1, *[1] * (error.ndim - 1))
        match self.settings.loss_type:
            case "huber":
                values = _huber(error, c)
            case "smooth_l1":
                values = _huber(error, c) / c
            case "pseudo_huber":
                values = c * _smooth_pseudo_huber(error, c)
            case "smooth_pseudo_huber":
                values = _smooth_pseudo_huber(error, c)
        return Losses(_mean(values, mask), mean_square(error.detach(), mask))

    def corner(self, sigma: Tensor) -> Tensor:
        """Return the error [B] from which the loss at `sigma` [B] grows no faster than linearly.

        The schedules are those of Khrapov et al. 2024. Theirs by SNR is (1-c) / (1 + 1/sqrt(SNR))^2 + c, and here
        1 + 1/sqrt(SNR) = 1 / (1-sigma).
        """
        least = self.settings.huber_c
        match self.settings.huber_schedule:
            case "constant":
                return torch.full_like(sigma, least)
            case "exponential":
                return torch.pow(least, sigma)
            case "snr":
                return (1 - least) * (1 - sigma).square() + least


def mean_square(error: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean square [B] of each sample's error [B, C, F, H, W], under a mask [B, F, H, W]."""
    return _mean(error.square(), mask)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return reduce(values, "b c f h w -> b", "mean")
    of_positions = reduce(values, "b c f h w -> b f h w", "mean")
    total = reduce(mask, "b f h w -> b", "sum")
    return reduce(of_positions * mask, "b f h w -> b", "sum") / torch.where(total > 0, total, 1.0)


def _huber(error: Tensor, c: Tensor) -> Tensor:
    size = error.abs()
    part = torch.minimum(size, c)
    return part * (2 * size - part)


def _smooth_pseudo_huber(error: Tensor, c: Tensor) -> Tensor:
    """2 * (sqrt(e^2 + c^2) - c), without a difference of nearly equal numbers."""
    square = error.square()
    return 2 * square / ((square + c.square()).sqrt() + c)
