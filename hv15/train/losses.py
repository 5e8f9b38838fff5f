"""Losses of a sample's error, all equal to its mean square where the error is small beside `huber_c`.

Errors are those of the predicted velocity, in fp32. The loss that is recorded is always the mean square, without
weights, so that trainings with other losses and weights can be compared.
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

    def __call__(self, error: Tensor, sigma: Tensor) -> Losses:
        """Return the losses of errors, fp32 [B, C, F, H, W], at `sigma` [B].

        - mse: the mean of e^2.
        - huber: e^2 up to |e| = c, then 2c|e| - c^2: twice Huber's loss (torch.nn.functional.huber_loss, delta = c).
        - pseudo_huber: 2c * (sqrt(e^2 + c^2) - c), as in Khrapov et al. 2024 ("Improving Diffusion Models's
          Data-Corruption Resistance using Scheduled Pseudo-Huber Loss").
        - smooth_l1, smooth_pseudo_huber: these divided by c, which tend to 2|e|.
        """
        if self.settings.loss_type == "mse":
            loss = mean_square(error)
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
        return Losses(_mean(values), mean_square(error.detach()))

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


def mean_square(error: Tensor) -> Tensor:
    """Return the mean square [B] of each sample's error [B, C, F, H, W]."""
    return _mean(error.square())


def _mean(values: Tensor) -> Tensor:
    return reduce(values, "b c f h w -> b", "mean")


def _huber(error: Tensor, c: Tensor) -> Tensor:
    size = error.abs()
    part = torch.minimum(size, c)
    return part * (2 * size - part)


def _smooth_pseudo_huber(error: Tensor, c: Tensor) -> Tensor:
    """2 * (sqrt(e^2 + c^2) - c), without a difference of nearly equal numbers."""
    square = error.square()
    return 2 * square / ((square + c.square()).sqrt() + c)
