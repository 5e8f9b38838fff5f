"""The settings of `train:` for the loss: how errors count, by their size and by the noise level."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from hv15.config.section import PAST, Section, only_with

WeightingScheme = Literal["none", "logit_normal", "mode", "cosmap", "sigma_sqrt", "min_snr", "debiased"]
LossType = Literal["mse", "huber", "smooth_l1", "pseudo_huber", "smooth_pseudo_huber"]
HuberSchedule = Literal["constant", "exponential", "snr"]

_HUBER = PAST | only_with(loss_type=("huber", "smooth_l1", "pseudo_huber", "smooth_pseudo_huber"))


class LossSettings(Section):
    """The loss that training minimises. What is recorded as the loss does not depend on these."""

    weighting_scheme: WeightingScheme = Field("none", json_schema_extra=PAST)
    """Weight of a sample in the loss, by its noise level; docs/noise-levels.md has the formulas. `none`: all the same.
    `logit_normal`, `mode`, `cosmap`: the density of this distribution. `sigma_sqrt`: 1 / sigma^2. `min_snr`: the errors
    of clean latents weighted by the signal-to-noise ratio, at most `min_snr_gamma`. `debiased`: sigma * (1 - sigma).
    The recorded loss stays without weights."""

    min_snr_gamma: PositiveFloat = Field(5.0, json_schema_extra=PAST | only_with(weighting_scheme=("min_snr",)))
    """The largest signal-to-noise ratio that counts in `min_snr`."""

    loss_type: LossType = Field("mse", json_schema_extra=PAST)
    """How the error of a latent counts. `mse`: its square. `huber`: its square up to `huber_c` and linear beyond, so
    that faulty clips pull less. `pseudo_huber`: nearly the same without a corner. `smooth_l1` and
    `smooth_pseudo_huber`: these two divided by `huber_c`. The recorded loss stays the mean of the squares."""

    huber_schedule: HuberSchedule = Field("snr", json_schema_extra=_HUBER)
    """How `huber_c` depends on the noise level. `constant`: not. `exponential`: from 1 without noise to `huber_c` for
    pure noise, as huber_c^sigma. `snr`: the same from and to, as (1 - huber_c) * (1 - sigma)^2 + huber_c."""

    huber_c: PositiveFloat = Field(0.1, json_schema_extra=_HUBER)
    """The error from which the loss grows no faster than linearly."""
