"""Distributions of sigma against scipy's, and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

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
    cosmap_density,
)

SIGMAS = (0.001, 0.02, 0.25, 0.5, 0.8, 0.999)
MIXED = Mixture(((0.8, LogitNormal(1.0, 1.0)), (0.2, LogitNormal(-2.7, 0.5))))
CONTINUOUS: list[Distribution] = [
    Uniform(),
    LogitNormal(-0.5, 2.0),
    Mode(1.29),
    Mode(-0.9),
    Beta(2.0, 5.0),
    MIXED,
    Shifted(Beta(0.5, 0.5), 3.0),
    Scaled(Mode(0.5), 0.2, 0.7),
    Truncated(LogitNormal(1.0, 1.0), 0.1, 0.4),
    Truncated(Scaled(MIXED, 0.1, 0.9), 0.3, 0.8),
]


def of_its_own(distribution: Distribution) -> str:
    return str(distribution)


@pytest.mark.parametrize("distribution", CONTINUOUS, ids=of_its_own)
def test_quantiles_undo_probabilities(distribution: Distribution) -> None:
    for probability in (1e-6, 0.01, 0.3, 0.5, 0.9, 0.999):
        assert distribution.up_to(distribution.quantile(probability)) == pytest.approx(probability, rel=1e-9)
    assert distribution.up_to(0.3) == distribution.below(0.3)


def test_a_logit_normal_is_a_normal_of_logits() -> None:
    normal = stats.norm(-0.5, 2.0)
    for sigma in SIGMAS:
        logit = math.log(sigma / (1 - sigma))
        assert LogitNormal(-0.5, 2.0).up_to(sigma) == pytest.approx(normal.cdf(logit), rel=1e-12)
        density = normal.pdf(logit) / (sigma * (1 - sigma))
        assert LogitNormal(-0.5, 2.0).density(sigma) == pytest.approx(density, rel=1e-12)
    assert LogitNormal(0, 1).density(0) == LogitNormal(0, 1).density(1) == 0


def test_far_tails_keep_their_digits() -> None:
    """Half of what torch's and Python's own functions lose there."""
    tail = stats.norm.cdf(math.log(1e-9) - math.log1p(-1e-9))
    assert LogitNormal(0, 1).up_to(1e-9) == pytest.approx(tail, rel=1e-9)
    assert LogitNormal(0, 1e4).quantile(0.1) == 0
    assert LogitNormal(0, 1e4).quantile(0.9) == 1


@pytest.mark.parametrize("scale", [-0.9, 0.0, 1.29, 1.75])
def test_mode_is_what_its_paper_writes(scale: float) -> None:
    for u in (0.0, 0.1, 0.5, 0.7, 1.0):
        sigma = 1 - u - scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u)
        assert Mode(scale).quantile(1 - u) == pytest.approx(sigma, abs=1e-12)


@pytest.mark.parametrize("distribution", [LogitNormal(0.4, 0.7), Mode(1.29), Mode(-0.5)], ids=of_its_own)
def test_a_density_adds_up_to_the_probability(distribution: LogitNormal | Mode) -> None:
    for low, high in ((0.0, 0.2), (0.2, 0.7), (0.7, 1.0)):
        area, _ = integrate.quad(distribution.density, low, high, epsabs=1e-9)
        assert area == pytest.approx(distribution.up_to(high) - distribution.up_to(low), abs=1e-7)


def test_cosmap_follows_the_cosine_schedule() -> None:
    """Its density adds up to u(sigma) of a cosine schedule, whose noise to signal is tan(pi/2 * u)."""
    for sigma in SIGMAS:
        area, _ = integrate.quad(cosmap_density, 0, sigma)
        assert area == pytest.approx(2 / math.pi * math.atan(sigma / (1 - sigma)), rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (0.3, 5.0), (80.0, 9.0)])
def test_beta_is_scipys(a: float, b: float) -> None:
    for probability in (1e-3, 0.2, 0.5, 0.99):
        assert Beta(a, b).quantile(probability) == pytest.approx(stats.beta(a, b).ppf(probability), rel=1e-7)


def test_a_shift_adds_its_logarithm_to_the_logit() -> None:
    for sigma in SIGMAS:
        shifted = Shifted(LogitNormal(0.2, 0.8), 5.0)
        assert shifted.up_to(sigma) == pytest.approx(LogitNormal(0.2 + math.log(5), 0.8).up_to(sigma), rel=1e-9)


def test_a_grid_has_every_step_once() -> None:
    places = (np.arange(1000) + 0.5) / 1000
    found = [Shifted(Grid(), 3.0).quantile(place) for place in places]
    steps = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(found, 3 * steps / (1 + 2 * steps), rtol=1e-12)
    assert [Grid().quantile(number / 1000) for number in (0, 1, 999, 1000)] == [0.001, 0.002, 1.0, 1.0]
    assert (Grid().below(0.3), Grid().up_to(0.3), Grid().up_to(0.2999)) == (0.299, 0.3, 0.299)


def test_a_range_of_a_grid_has_its_steps_with_both_ends() -> None:
    cut = Truncated(Grid(), 0.1, 0.6)
    found = [cut.quantile((number + 0.5) / 501) for number in range(501)]
    np.testing.assert_allclose(found, np.arange(100, 601) / 1000, rtol=1e-12)
    assert cut.share == pytest.approx(0.501)
    assert (cut.below(0.1), cut.up_to(0.6)) == (0, 1)


def test_what_lies_outside_a_range_has_no_probability() -> None:
    for distribution in (Scaled(Shifted(Grid(), 0.3), 0.2, 0.6), Truncated(Grid(), 0.2, 0.6)):
        assert distribution.up_to(0.19) == distribution.below(0.19) == 0
        assert distribution.up_to(0.7) == distribution.below(0.7) == 1
