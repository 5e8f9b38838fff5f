"""Weights by sigma: what the papers write for other predictions, turned into that of the velocity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from hv15.config import TrainSettings
from hv15.config.training.loss import WeightingScheme
from hv15.train.weighting import LossWeight

SIGMAS = (0.001, 0.02, 0.3, 0.5, 0.8, 0.99)


def weight_of(weighting_scheme: WeightingScheme, **options: float) -> LossWeight:
    return LossWeight.from_settings(TrainSettings(weighting_scheme=weighting_scheme, **options))


def snr(sigma: float) -> float:
    """Of (1-sigma) parts data to sigma parts noise."""
    return ((1 - sigma) / sigma) ** 2


def test_none_is_one() -> None:
    assert {weight_of("none")(sigma) for sigma in SIGMAS} == {1.0}


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_errors_of_clean_latents(gamma: float) -> None:
    """x0 = x - sigma * velocity: an error of the velocity is sigma times it there."""
    for sigma in SIGMAS:
        expected = min(snr(sigma), gamma) * sigma**2
        assert weight_of("min_snr", min_snr_gamma=gamma)(sigma) == pytest.approx(expected, rel=1e-12)


def test_debiased_weights_errors_of_the_noise() -> None:
    """noise = x + (1-sigma) * velocity."""
    for sigma in SIGMAS:
        expected = (1 - sigma) ** 2 / math.sqrt(snr(sigma))
        assert weight_of("debiased")(sigma) == pytest.approx(expected, rel=1e-12)


def test_sigma_sqrt_and_cosmap_are_those_of_diffusers_trainers() -> None:
    """1 / sigma^2 and 2 / (pi * (1 - 2*sigma + 2*sigma^2))."""
    for sigma in SIGMAS:
        assert weight_of("sigma_sqrt")(sigma) == pytest.approx(sigma**-2.0)
        assert weight_of("cosmap")(sigma) == pytest.approx(2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2)))


def test_a_logit_normal_weight_is_the_density_that_would_be_drawn() -> None:
    for sigma in SIGMAS:
        expected = stats.norm(0.3, 0.8).pdf(math.log(sigma / (1 - sigma))) / (sigma * (1 - sigma))
        weight = weight_of("logit_normal", logit_mean=0.3, logit_std=0.8)
        assert weight(sigma) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scheme", ["logit_normal", "mode", "cosmap"])
def test_the_mean_of_a_density_is_one(scheme: WeightingScheme) -> None:
    assert integrate.quad(weight_of(scheme), 0, 1)[0] == pytest.approx(1, abs=1e-6)


def test_weighting_trains_in_the_mean_as_drawing_does() -> None:
    """The mean of any function of sigma, drawn from `mode`, and drawn equally with the weight `mode`."""
    weight, options = weight_of("mode"), TrainSettings(timestep_sampling="mode", discrete_flow_shift=1.0)
    places = (np.arange(4000) + 0.5) / 4000
    drawn = np.mean([options.distribution().quantile(place) ** 3 for place in places])
    weighted = np.mean([weight(place) * place**3 for place in places])
    assert weighted == pytest.approx(drawn, rel=1e-4)


@pytest.mark.parametrize("scheme", WeightingScheme.__args__)
def test_weights_are_finite_at_the_ends(scheme: WeightingScheme) -> None:
    """A sigma of exactly 0 is drawn once in some millions."""
    for sigma in (0.0, 1e-30, 1.0):
        assert 0 <= weight_of(scheme)(sigma) <= 1e6
