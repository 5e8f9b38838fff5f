"""Distributions of sigma, from 0 (data) to 1 (noise), as functions of numbers: probabilities, quantiles, densities.

A random number from 0 to 1 becomes a sigma by the quantile function, so one number makes a sigma of any distribution,
of a part of it, or of one of N parts that are equally probable.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from hv15.noise.incomplete_beta import incomplete_beta
from hv15.noise.levels import TIMESTEPS, shifted

_HALVINGS = 60
"""How often an interval within 0 and 1 is halved: until it is shorter than the distance of two floats."""
_ROUNDING = 1e-9
"""The largest error of a number of grid steps."""
_STANDARD = NormalDist()


class Distribution(ABC):
    """A distribution on the numbers from 0 to 1."""

    @abstractmethod
    def up_to(self, sigma: float) -> float:
        """Return the probability of a sigma of at most this."""

    @abstractmethod
    def quantile(self, probability: float) -> float:
        """Return the sigma up to which there is this probability (0 to 1)."""

    def below(self, sigma: float) -> float:
        """Return the probability of a smaller sigma, which differs from `up_to` where single values have one."""
        return self.up_to(sigma)


@dataclass(frozen=True)
class Uniform(Distribution):
    """All sigmas equally."""

    def up_to(self, sigma: float) -> float:
        return min(max(sigma, 0.0), 1.0)

    def quantile(self, probability: float) -> float:
        return probability


@dataclass(frozen=True)
class LogitNormal(Distribution):
    """A sigmoid of a normal variable with this mean and standard deviation (Atchison and Shen 1980).

    Esser et al. 2024 ("Scaling Rectified Flow Transformers", section 3.1) train with it. A shift by k adds log k to the
    mean.
    """

    mean: float
    std: float

    def up_to(self, sigma: float) -> float:
        if sigma <= 0 or sigma >= 1:
            return float(sigma >= 1)
        return 0.5 * math.erfc(-self._normal(sigma) / math.sqrt(2))

    def quantile(self, probability: float) -> float:
        if probability <= 0 or probability >= 1:
            return float(probability >= 1)
        return _sigmoid(self.mean + self.std * _STANDARD.inv_cdf(probability))

    def density(self, sigma: float) -> float:
        """Return the probability density, whose mean over all sigmas is 1."""
        if sigma <= 0 or sigma >= 1:
            return 0.0
        return _STANDARD.pdf(self._normal(sigma)) / (self.std * sigma * (1 - sigma))

    def _normal(self, sigma: float) -> float:
        return (math.log(sigma) - math.log1p(-sigma) - self.mean) / self.std


@dataclass(frozen=True)
class Mode(Distribution):
    """A heavy-tailed distribution whose density stays above 0 at both ends (Esser et al. 2024, equation 20).

    sigma = 1 - u - s * (cos(pi/2 * u)^2 - 1 + u) for a uniform u; it falls with u for s from -1 to 2 / (pi - 2).
    """

    scale: float
    """s: above 0 for more medium sigmas, below 0 for more extreme ones; 0 is uniform."""

    def up_to(self, sigma: float) -> float:
        return 1 - self._uniform(sigma)

    def quantile(self, probability: float) -> float:
        u = 1 - probability
        found = 1 - u - self.scale * (math.cos(math.pi / 2 * u) ** 2 - 1 + u)
        return min(max(found, 0.0), 1.0)  # rounding may exceed them

    def density(self, sigma: float) -> float:
        """Return the probability density, whose mean over all sigmas is 1."""
        slope = -(1 + self.scale) + self.scale * math.pi / 2 * math.sin(math.pi * self._uniform(sigma))
        return 1 / abs(slope)

    def _uniform(self, sigma: float) -> float:
        return 1 - _inverse(self.quantile, sigma)


def cosmap_density(sigma: float) -> float:
    """Return the density of "CosMap": sampling that goes along a cosine schedule (Esser et al. 2024, equation 21)."""
    return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))


@dataclass(frozen=True)
class Beta(Distribution):
    """A beta distribution: density proportional to sigma^(a-1) * (1-sigma)^(b-1)."""

    a: float
    b: float

    def up_to(self, sigma: float) -> float:
        return incomplete_beta(self.a, self.b, sigma)

    def quantile(self, probability: float) -> float:
        return _inverse(self.up_to, probability)


@dataclass(frozen=True)
class Grid(Distribution):
    """The sigmas 1/n, 2/n, ... 1 with equal probabilities; n = 1000 has those of the timesteps 1 to 1000."""

    steps: int = int(TIMESTEPS)

    def up_to(self, sigma: float) -> float:
        return min(max(math.floor(sigma * self.steps + _ROUNDING), 0), self.steps) / self.steps

    def below(self, sigma: float) -> float:
        return min(max(math.ceil(sigma * self.steps - _ROUNDING) - 1, 0), self.steps) / self.steps

    def quantile(self, probability: float) -> float:
        return min(math.floor(probability * self.steps + _ROUNDING) + 1, self.steps) / self.steps


@dataclass(frozen=True)
class Mixture(Distribution):
    """One of several distributions, each with a share; the shares add up to 1."""

    parts: tuple[tuple[float, Distribution], ...]

    def up_to(self, sigma: float) -> float:
        return sum(share * part.up_to(sigma) for share, part in self.parts)

    def quantile(self, probability: float) -> float:
        found = [part.quantile(probability) for _, part in self.parts]
        return _inverse(self.up_to, probability, min(found), max(found))


@dataclass(frozen=True)
class Shifted(Distribution):
    """Another distribution's sigmas, shifted towards noise."""

    of: Distribution
    shift: float

    def up_to(self, sigma: float) -> float:
        return self.of.up_to(shifted(sigma, 1 / self.shift))

    def below(self, sigma: float) -> float:
        return self.of.below(shifted(sigma, 1 / self.shift))

    def quantile(self, probability: float) -> float:
        return shifted(self.of.quantile(probability), self.shift)


@dataclass(frozen=True)
class Scaled(Distribution):
    """Another distribution, scaled linearly from [0, 1] to [low, high]."""

    of: Distribution
    low: float
    high: float

    def up_to(self, sigma: float) -> float:
        return self._inside(sigma, self.of.up_to)

    def below(self, sigma: float) -> float:
        return self._inside(sigma, self.of.below)

    def quantile(self, probability: float) -> float:
        return self.low + (self.high - self.low) * self.of.quantile(probability)

    def _inside(self, sigma: float, probability: Callable[[float], float]) -> float:
        if not self.low <= sigma <= self.high:
            return float(sigma > self.high)
        return probability((sigma - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Truncated(Distribution):
    """Another distribution, given that its sigma is in [low, high]."""

    of: Distribution
    low: float
    high: float

    @cached_property
    def share(self) -> float:
        """The probability of this range in the other distribution."""
        return self.of.up_to(self.high) - self._before

    @cached_property
    def _before(self) -> float:
        return self.of.below(self.low)

    def up_to(self, sigma: float) -> float:
        return self._inside(self.of.up_to(sigma))

    def below(self, sigma: float) -> float:
        return self._inside(self.of.below(sigma))

    def quantile(self, probability: float) -> float:
        found = self.of.quantile(self._before + probability * self.share)
        return min(max(found, self.low), self.high)

    def _inside(self, probability: float) -> float:
        return min(max((probability - self._before) / self.share, 0.0), 1.0)


def _sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), where exp would overflow too."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def _inverse(rising: Callable[[float], float], value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return where a rising function has a value, to the last digits of a float, by halving an interval."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
