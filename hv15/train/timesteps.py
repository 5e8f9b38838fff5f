"""The distribution of sigmas in training: four well-known rules, as functions of one random number per sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hv15.config.train import TrainSettings
from hv15.config.training.timesteps import TimestepSampling
from hv15.models.noise_levels import TIMESTEPS, shifted
from hv15.train.random import generator


@dataclass(frozen=True)
class SigmaRule:
    """A distribution of sigma in [0, 1]; its fields are the settings of `train:` of the same names."""

    timestep_sampling: TimestepSampling
    discrete_flow_shift: float
    sigmoid_scale: float
    logit_mean: float
    logit_std: float
    min_timestep: float
    max_timestep: float

    @classmethod
    def from_settings(cls, options: TrainSettings) -> SigmaRule:
        """Make the rule from `train:`."""
        return cls(
            timestep_sampling=options.timestep_sampling,
            discrete_flow_shift=options.discrete_flow_shift,
            sigmoid_scale=options.sigmoid_scale,
            logit_mean=options.logit_mean,
            logit_std=options.logit_std,
            min_timestep=options.min_timestep,
            max_timestep=options.max_timestep,
        )

    def sigmas(self, seed: int, samples: range | list[int]) -> Tensor:
        """Return the sigma, fp32 [B], of each global sample index."""
        draw = torch.rand if self.timestep_sampling == "uniform" else torch.randn
        numbers = [draw((), generator=generator(seed, "sigma", sample)) for sample in samples]
        return self.from_numbers(torch.stack(numbers))

    def from_numbers(self, numbers: Tensor) -> Tensor:
        """Map random numbers of any shape to sigmas: uniform in [0, 1) for the rule `uniform`, else standard normal.

        The whole distribution is scaled linearly to the range from min_timestep to max_timestep (0 to 1000 = noise).
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
