"""The sigmas of training: each sample's is made from a random number of its own.

The number becomes a sigma by the quantile function of the distribution (`TimestepSettings.distribution`), so a range or
equally probable parts need no further draws. Four of the rules without these map numbers of torch in fp32 instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from hv15.config.training.timesteps import TimestepSettings
from hv15.noise.distributions import Distribution, Truncated
from hv15.noise.levels import TIMESTEPS, shifted
from hv15.train.random import generator


@dataclass(frozen=True)
class SigmaRule:
    """Draws sigmas as these settings say."""

    settings: TimestepSettings

    @cached_property
    def distribution(self) -> Distribution:
        """What the sigmas are drawn from."""
        return self.settings.distribution()

    def sigmas(self, seed: int, samples: range | list[int]) -> Tensor:
        """Return the sigma, fp32 [B], of each global sample index."""
        if not self._is_mapped:
            found = [self.distribution.quantile(self._probability(seed, sample)) for sample in samples]
            return torch.tensor(found, dtype=torch.float32)
        draw = torch.rand if self.settings.timestep_sampling == "uniform" else torch.randn
        return self._mapped(torch.stack([draw((), generator=generator(seed, "sigma", sample)) for sample in samples]))

    def _probability(self, seed: int, sample: int) -> float:
        """A random number in [0, 1); with N buckets, one in each N-th for N consecutive samples."""
        number = torch.rand((), generator=generator(seed, "sigma", sample), dtype=torch.float64).item()
        buckets = self.settings.num_timestep_buckets
        if buckets is None:
            return number
        group, place = divmod(sample, buckets)
        return (_order_of_buckets(buckets, seed, group)[place] + number) / buckets

    @property
    def _is_mapped(self) -> bool:
        settings = self.settings
        whole = settings.num_timestep_buckets is None and not isinstance(self.distribution, Truncated)
        return whole and settings.timestep_sampling in ("uniform", "sigmoid", "shift", "logit_normal")

    def _mapped(self, numbers: Tensor) -> Tensor:
        """Map random numbers of any shape to sigmas: uniform in [0, 1) for the rule `uniform`, else standard normal."""
        settings, sigma = self.settings, numbers
        match settings.timestep_sampling:
            case "sigmoid":
                sigma = torch.sigmoid(settings.sigmoid_scale * numbers)
            case "shift":
                sigma = shifted(torch.sigmoid(settings.sigmoid_scale * numbers), settings.discrete_flow_shift)
            case "logit_normal":
                logits = settings.logit_mean + settings.logit_std * numbers
                sigma = shifted(torch.sigmoid(logits), settings.discrete_flow_shift)
        low, high = settings.min_timestep / TIMESTEPS, settings.max_timestep / TIMESTEPS
        return low + (high - low) * sigma


@lru_cache(maxsize=16)
def _order_of_buckets(buckets: int, seed: int, group: int) -> list[int]:
    """The order in which a group of consecutive samples takes the buckets."""
    order: list[int] = torch.randperm(buckets, generator=generator(seed, "sigma_buckets", group)).tolist()
    return order
