"""The settings of `train:` for the distribution of noise levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from hv15.config.section import PAST, Conflict, Section, only_with
from hv15.noise.distributions import (
    Beta,
    Distribution,
    Grid,
    LogitNormal,
    Mixture,
    Mode,
    Scaled,
    Shifted,
    Truncated,
    Uniform,
)
from hv15.noise.levels import TIMESTEPS

TimestepSampling = Literal["shift", "sigmoid", "uniform", "logit_normal", "logsnr", "mode", "qinglong", "beta", "sigma"]
Timestep = Annotated[float, Field(ge=0.0, le=1000.0)]
BetaShape = Annotated[float, Field(ge=0.05, le=100.0)]

LEAST_SHARE = 1e-6
"""Of a distribution that may be cut out: the digits of a float do not describe much less."""
QINGLONG = (0.8, 0.075, 0.125)
"""Shares of the three parts of `qinglong`: `shift`, `logsnr`, and little noise."""
LITTLE_NOISE = (5.36, 1.0)
"""Mean and standard deviation of the log-SNR of the third."""


class TimestepSettings(Section):
    """The distribution of noise levels (sigma) in training."""

    timestep_sampling: TimestepSampling = Field("shift", json_schema_extra=PAST)
    """Distribution of noise levels (sigma); docs/noise-levels.md compares them. `shift`: a sigmoid of a normal
    variable, shifted by `discrete_flow_shift`. `sigmoid`: the same without the shift. `uniform`: all levels equally.
    `logit_normal`: a sigmoid of a normal variable with `logit_mean` and `logit_std`, then shifted, as in the official
    training. `logsnr`: the logarithm of the signal-to-noise ratio is normal with `logit_mean` and `logit_std`; -6 and 2
    train on style. `mode`: with heavy tails, by `mode_scale`, then shifted. `qinglong`: 80 % as `shift`, 7.5 % as
    `logsnr`, 12.5 % with little noise. `beta`: a beta distribution, then shifted. `sigma`: the 1000 timesteps of the
    shifted schedule equally."""

    discrete_flow_shift: PositiveFloat = Field(
        3.0,
        json_schema_extra=PAST
        | only_with(timestep_sampling=("shift", "logit_normal", "mode", "qinglong", "beta", "sigma")),
    )
    """Moves sampled sigmas towards noise: s*t / (1 + (s-1)*t). Official training uses 3, sampling 5 to 9 (by
    checkpoint). Higher values train more on layout and motion, lower values more on detail."""

    sigmoid_scale: PositiveFloat = Field(
        1.0, json_schema_extra=PAST | only_with(timestep_sampling=("shift", "sigmoid", "qinglong"))
    )
    """Spread of `shift` and `sigmoid`: above 1 for more extreme noise levels, below 1 for more medium ones."""

    logit_mean: float = Field(
        0.0,
        json_schema_extra=PAST
        | only_with(
            {"timestep_sampling": ("logit_normal", "logsnr", "qinglong")}, {"weighting_scheme": ("logit_normal",)}
        ),
    )
    """Centre of `logit_normal`, in sampling and weighting: positive values are towards noise. Of `logsnr` and its part
    of `qinglong`: negative values are towards noise."""

    logit_std: PositiveFloat = Field(
        1.0,
        json_schema_extra=PAST
        | only_with(
            {"timestep_sampling": ("logit_normal", "logsnr", "qinglong")}, {"weighting_scheme": ("logit_normal",)}
        ),
    )
    """Spread of `logit_normal`, in sampling and weighting, of `logsnr`, and of its part of `qinglong`."""

    mode_scale: float = Field(
        1.29,
        gt=-1.0,
        le=1.75,
        json_schema_extra=PAST | only_with({"timestep_sampling": ("mode",)}, {"weighting_scheme": ("mode",)}),
    )
    """Shape of `mode`, in sampling and weighting: above 0 for more medium noise levels, below 0 for more extreme ones;
    0 is uniform."""

    beta_alpha: BetaShape = Field(2.0, json_schema_extra=PAST | only_with(timestep_sampling=("beta",)))
    """First parameter of `beta`: larger values are towards noise."""

    beta_beta: BetaShape = Field(2.0, json_schema_extra=PAST | only_with(timestep_sampling=("beta",)))
    """Second parameter of `beta`: larger values are towards data."""

    min_timestep: Timestep = Field(0.0, json_schema_extra=PAST)
    """Lowest timestep that is trained (0 = no noise). Increase it to leave fine detail unchanged."""

    max_timestep: Timestep = Field(1000.0, json_schema_extra=PAST)
    """Highest timestep that is trained (1000 = pure noise). Lower it to leave the layout unchanged."""

    preserve_distribution_shape: bool = Field(False, json_schema_extra=PAST)
    """With `min_timestep` or `max_timestep`: false squeezes the whole distribution into the range, true cuts the range
    out of it, so that the noise levels within are as frequent, relative to each other, as without the range."""

    num_timestep_buckets: Annotated[int, Field(ge=2, le=4096)] | None = Field(None, json_schema_extra=PAST)
    """Divides the distribution into so many equally probable parts, and draws from each once in every so many samples,
    in random order: all noise levels get their share even in short trainings. 4 to 10 are usual."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        low, high = self.min_timestep, self.max_timestep
        if low >= high:
            yield ("min_timestep",), f"found {low:g}, expected less than max_timestep ({high:g})"
        elif self.preserve_distribution_shape:
            yield from self._faults_of_the_range()

    def _faults_of_the_range(self) -> Iterator[Conflict]:
        cut = self.distribution()
        if not isinstance(cut, Truncated):
            yield ("preserve_distribution_shape",), "has no effect without min_timestep or max_timestep"
        elif cut.share < LEAST_SHARE:
            range_ = f"{self.min_timestep:g} to {self.max_timestep:g}"
            text = f"{self.timestep_sampling} hardly ever draws timesteps from {range_}; widen the range, or set false"
            yield ("preserve_distribution_shape",), text

    def distribution(self) -> Distribution:
        """Return what sigmas are drawn from."""
        whole, low, high = self._whole(), self.min_timestep / TIMESTEPS, self.max_timestep / TIMESTEPS
        if (low, high) == (0, 1):
            return whole
        return Truncated(whole, low, high) if self.preserve_distribution_shape else Scaled(whole, low, high)

    def _whole(self) -> Distribution:
        """Without the range."""
        shift = self.discrete_flow_shift
        sigmoid = LogitNormal(0.0, self.sigmoid_scale)
        logsnr = _by_logsnr(self.logit_mean, self.logit_std)
        match self.timestep_sampling:
            case "uniform":
                return Uniform()
            case "sigmoid":
                return sigmoid
            case "shift":
                return _shifted(sigmoid, shift)
            case "logit_normal":
                return _shifted(LogitNormal(self.logit_mean, self.logit_std), shift)
            case "logsnr":
                return logsnr
            case "mode":
                return Shifted(Mode(self.mode_scale), shift)
            case "qinglong":
                parts = (_shifted(sigmoid, shift), logsnr, _by_logsnr(*LITTLE_NOISE))
                return Mixture(tuple(zip(QINGLONG, parts, strict=True)))
            case "beta":
                return Shifted(Beta(self.beta_alpha, self.beta_beta), shift)
            case "sigma":
                return Shifted(Grid(), shift)


def _shifted(of: LogitNormal, shift: float) -> LogitNormal:
    return LogitNormal(of.mean + math.log(shift), of.std)


def _by_logsnr(mean: float, std: float) -> LogitNormal:
    """The sigma whose log-SNR is normal: 2 * log((1-sigma) / sigma), as data and noise are mixed 1-sigma to sigma.

    Source: Choi et al. 2024 ("Style-Friendly SNR Sampler").
    """
    return LogitNormal(-mean / 2, std / 2)
