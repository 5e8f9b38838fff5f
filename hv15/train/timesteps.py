"""Which sigmas a training sees: the four rules that users know, as functions of one random number per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hv15.models.noise_levels import TIMESTEPS, shifted
from hv15.train.random import generator

Rule = Literal["shift", "sigmoid", "uniform", "logit_normal"]


@dataclass(frozen=True)
class SigmaRule:
    """A distribution of sigma in [0, 1]; the field names are those of the settings (`train.timestep_sampling` ...)."""

    timestep_sampling: Rule = "shift"
    discrete_flow_shift: float = 3.0
    sigmoid_scale: float = 1.0
    logit_mean: float = 0.0
    logit_std: float = 1.0
    min_timestep: float = 0.0
    max_timestep: float = TIMESTEPS

    def sigmas(self, seed: int, samples: range | list[int]) -> Tensor:
        """Return sigma for each global sample index: fp32 [B]."""
        draw = torch.rand if self.timestep_sampling == "uniform" else torch.randn
        numbers = [draw((), generator=generator(seed, "sigma", sample)) for sample in samples]
        return self.from_numbers(torch.stack(numbers))

    def from_numbers(self, numbers: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) (rule `uniform`) or standard normal ones (all others) to sigmas.

        min_timestep and max_timestep (0 to 1000, noise is 1000) squeeze the whole distribution into their range,
        keeping its direction.
        """
        match self.timestep_sampling:
            case "uniform":
                sigma = numbers
            case "sigmoid":
                sigma = torch.sigmoid(self.sigmoid_scale * numbers)
            case "shift":
                sigma = shifted(torch.sigmoid(self.sigmoid_scale * numbers), self.discrete_flow_shift)
            case "logit_normal":
                sigma = shifted(torch.sigmoid(self.logit_mean + self.logit_std * numbers), self.discrete_flow_shift)
        low, high = self.min_timestep / TIMESTEPS, self.max_timestep / TIMESTEPS
        return low + (high - low) * sigma
