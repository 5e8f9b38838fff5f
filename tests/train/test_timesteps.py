"""Each rule against its distribution in closed form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats

from hv15.config.train import TrainSettings
from hv15.config.training.timesteps import TimestepSampling
from hv15.noise.levels import shifted
from hv15.train.timesteps import SigmaRule

pytestmark = pytest.mark.numeric

SAMPLES = range(4000)


def rule_of(timestep_sampling: TimestepSampling = "shift", **options: Any) -> SigmaRule:
    return SigmaRule(TrainSettings(timestep_sampling=timestep_sampling, **options))


def logit(values: np.ndarray) -> np.ndarray:
    return np.log(values) - np.log1p(-values)


def shifted_back(sigma: np.ndarray, shift: float) -> np.ndarray:
    return sigma / (shift - (shift - 1) * sigma)


def logsnr(sigma: np.ndarray) -> np.ndarray:
    return 2 * np.log((1 - sigma) / sigma)


def within(probability: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> Any:
    """The part of a distribution in a range, of which it is all."""
    share = probability(np.float64(high)) - probability(np.float64(low))
    return lambda s: np.clip((probability(s) - probability(np.float64(low))) / share, 0, 1)


@pytest.mark.parametrize(
    ("rule", "probability"),
    [
        (rule_of("uniform"), lambda s: s),
        (rule_of("sigmoid", sigmoid_scale=1.7), lambda s: stats.norm.cdf(logit(s) / 1.7)),
        (rule_of("shift", discrete_flow_shift=1.0), lambda s: stats.norm.cdf(logit(s))),
        (rule_of("shift", discrete_flow_shift=7.0), lambda s: stats.norm.cdf(logit(shifted_back(s, 7.0)))),
        # shifting by k adds log k to the logit: an independent way to the same distribution
        (rule_of("shift", discrete_flow_shift=3.0), lambda s: stats.norm.cdf(logit(s) - np.log(3))),
        (
            rule_of("logit_normal", logit_mean=-0.5, logit_std=0.8, discrete_flow_shift=3.0),
            lambda s: stats.norm.cdf((logit(s) - np.log(3) + 0.5) / 0.8),
        ),
        (rule_of("uniform", min_timestep=200, max_timestep=700), lambda s: np.clip((s - 0.2) / 0.5, 0, 1)),
        (rule_of("logsnr", logit_mean=-6.0, logit_std=2.0), lambda s: stats.norm.sf((logsnr(s) + 6) / 2)),
        (rule_of("beta", beta_alpha=2.0, beta_beta=3.0, discrete_flow_shift=1.0), stats.beta(2, 3).cdf),
        (rule_of("beta", beta_alpha=0.5, beta_beta=4.0), lambda s: stats.beta(0.5, 4).cdf(shifted_back(s, 3.0))),
        # a part of each distribution, as it is there
        (
            rule_of("shift", min_timestep=100, max_timestep=700, preserve_distribution_shape=True),
            within(lambda s: stats.norm.cdf(logit(s) - np.log(3)), 0.1, 0.7),
        ),
        (
            rule_of("uniform", min_timestep=950, preserve_distribution_shape=True),
            lambda s: np.clip((s - 0.95) / 0.05, 0, 1),
        ),
        (
            rule_of("logsnr", logit_mean=-6.0, logit_std=2.0, max_timestep=500, preserve_distribution_shape=True),
            lambda s: np.clip(stats.norm.sf((logsnr(s) + 6) / 2) / stats.norm.sf(3), 0, 1),
        ),
        # equally probable parts do not change what is drawn in the long run
        (rule_of("sigmoid", num_timestep_buckets=7), lambda s: stats.norm.cdf(logit(s))),
        (
            rule_of("uniform", min_timestep=200, max_timestep=700, num_timestep_buckets=5),
            lambda s: np.clip((s - 0.2) / 0.5, 0, 1),
        ),
    ],
)
def test_distribution(rule: SigmaRule, probability: Any) -> None:
    samples = range(400) if rule.settings.timestep_sampling == "beta" else SAMPLES
    sigmas = rule.sigmas(11, samples).double().numpy()
    assert stats.kstest(sigmas, probability).pvalue > 1e-3
    reached = [rule.distribution.up_to(sigma) for sigma in sigmas[:50]]
    np.testing.assert_allclose(reached, probability(sigmas[:50]), atol=1e-6)


def mode_of_the_paper(number: int, scale: float) -> np.ndarray:
    u = np.random.default_rng(0).uniform(size=number)
    return 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)


def qinglong_of_musubi(number: int, shift: float) -> np.ndarray:
    """80 % a shifted sigmoid, 7.5 % by the log-SNR of the settings, 12.5 % by one of mean 5.36."""
    rng = np.random.default_rng(1)
    part, normal = rng.uniform(size=number), rng.normal(size=number)
    middle = 1 / (1 + np.exp(-normal))
    styles, details = (1 / (1 + np.exp((mean + std * normal) / 2)) for mean, std in ((-6.0, 2.0), (5.36, 1.0)))
    return np.where(part < 0.8, shift * middle / (1 + (shift - 1) * middle), np.where(part < 0.875, styles, details))


@pytest.mark.parametrize(
    ("rule", "drawn"),
    [
        (rule_of("mode", discrete_flow_shift=1.0), mode_of_the_paper(4000, 1.29)),
        (rule_of("mode", discrete_flow_shift=1.0, mode_scale=-0.7), mode_of_the_paper(4000, -0.7)),
        (rule_of("qinglong", logit_mean=-6, logit_std=2, discrete_flow_shift=2.0), qinglong_of_musubi(4000, 2.0)),
    ],
)
def test_distributions_that_are_defined_by_how_they_are_drawn(rule: SigmaRule, drawn: np.ndarray) -> None:
    assert stats.ks_2samp(rule.sigmas(2, range(1000)).double().numpy(), drawn).pvalue > 1e-3


SIGMOID = stats.norm.rvs(size=40_000, random_state=5)
DRAWN: dict[TimestepSampling, tuple[dict[str, Any], np.ndarray]] = {
    "sigmoid": ({"sigmoid_scale": 1.3}, 1 / (1 + np.exp(-1.3 * SIGMOID))),
    "logit_normal": (
        {"logit_mean": 0.4, "logit_std": 0.7, "discrete_flow_shift": 1.0},
        1 / (1 + np.exp(-(0.4 + 0.7 * SIGMOID))),
    ),
    "mode": ({"discrete_flow_shift": 1.0, "mode_scale": 1.29}, mode_of_the_paper(40_000, 1.29)),
    "qinglong": ({"logit_mean": -6, "logit_std": 2, "discrete_flow_shift": 2.0}, qinglong_of_musubi(40_000, 2.0)),
    "beta": (
        {"discrete_flow_shift": 1.0, "beta_alpha": 2, "beta_beta": 3},
        stats.beta.rvs(2, 3, size=40_000, random_state=6),
    ),
}
"""Settings, and numbers that are drawn in another way, of the rules whose cut is in no formula above."""


@pytest.mark.parametrize("buckets", [None, 6])
@pytest.mark.parametrize("name", DRAWN)
def test_a_cut_is_what_is_left_when_all_else_is_thrown_away(name: TimestepSampling, buckets: int | None) -> None:
    """With equally probable parts, too: they are parts of the cut."""
    options, drawn = DRAWN[name]
    rule = rule_of(
        name,
        **options,
        min_timestep=150,
        max_timestep=800,
        preserve_distribution_shape=True,
        num_timestep_buckets=buckets,
    )
    kept = drawn[(drawn >= 0.15) & (drawn <= 0.8)]
    assert 500 < len(kept) < len(drawn)
    assert stats.ks_2samp(rule.sigmas(9, range(600)).double().numpy(), kept).pvalue > 1e-3


@pytest.mark.parametrize("name", DRAWN)
def test_equally_probable_parts_leave_a_distribution_as_it_is(name: TimestepSampling) -> None:
    options, drawn = DRAWN[name]
    rule = rule_of(name, **options, num_timestep_buckets=6)
    assert stats.ks_2samp(rule.sigmas(9, range(600)).double().numpy(), drawn).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, range(1, 1001)),
        ({"min_timestep": 750, "preserve_distribution_shape": True}, range(500, 1001)),  # 3*0.5 / (1 + 2*0.5) = 0.75
    ],
)
def test_sigma_draws_the_timesteps_of_the_shifted_schedule_equally(options: dict[str, Any], steps: range) -> None:
    sigmas = rule_of("sigma", discrete_flow_shift=3.0, **options).sigmas(4, SAMPLES).double().numpy()
    number = 1000 * shifted_back(sigmas, 3.0)
    np.testing.assert_allclose(number, np.round(number), atol=2e-3)
    counts = np.bincount(np.round(number).astype(int), minlength=1001)
    assert counts.sum() == counts[steps.start : steps.stop].sum() == len(SAMPLES)
    assert stats.chisquare(counts[steps.start : steps.stop]).pvalue > 1e-3


@pytest.mark.parametrize("name", get_args(TimestepSampling))
def test_the_range_is_kept_in_its_direction(name: TimestepSampling) -> None:
    """min_timestep cuts off clean latents, max_timestep noise; the order of the rule is not reversed."""
    narrow, wide = rule_of(name, min_timestep=100, max_timestep=600), rule_of(name)
    low, full = narrow.sigmas(3, range(100)), wide.sigmas(3, range(100))
    assert low.min() >= 0.1
    assert low.max() <= 0.6
    torch.testing.assert_close(low, 0.1 + 0.5 * full)


@pytest.mark.parametrize("name", get_args(TimestepSampling))
def test_a_range_with_the_same_shape_is_kept_exactly(name: TimestepSampling) -> None:
    options: dict[str, Any] = {"min_timestep": 100, "max_timestep": 600, "preserve_distribution_shape": True}
    sigmas = rule_of(name, **options).sigmas(3, range(100))
    assert (sigmas.min() >= 0.1 - 1e-7, sigmas.max() <= 0.6 + 1e-7) == (True, True)
    assert len(set(sigmas.tolist())) > 80  # not collected at the ends


@pytest.mark.parametrize("name", get_args(TimestepSampling))
def test_every_group_of_samples_takes_each_bucket_once(name: TimestepSampling) -> None:
    """Also where neither the batches nor the steps begin with a group."""
    rule = rule_of(name, num_timestep_buckets=8, min_timestep=50, preserve_distribution_shape=True)
    sigmas = rule.sigmas(6, range(48)).tolist()
    buckets = [min(int(8 * rule.distribution.below(sigma) + 1e-4), 7) for sigma in sigmas]
    groups = [tuple(buckets[start : start + 8]) for start in range(0, 48, 8)]
    assert all(sorted(group) == list(range(8)) for group in groups)
    assert len(set(groups)) > 1
    assert sigmas[13:16] == rule.sigmas(6, [13, 14, 15]).tolist()


def test_a_higher_shift_means_more_noise() -> None:
    means = [rule_of("shift", discrete_flow_shift=k).sigmas(0, range(800)).mean().item() for k in (1.0, 3.0, 7.0)]
    assert means == sorted(means)
    assert means[0] < 0.55 < 0.65 < means[1] < 0.85


def test_the_shift_is_that_of_the_official_schedule() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "sigma_schedules.json").read_text())
    checked = 0
    for case in golden:
        straight = torch.linspace(1, 0, case["steps"] + 1)
        torch.testing.assert_close(shifted(straight, case["shift"]), torch.tensor(case["sigmas"]), atol=1e-6, rtol=0)
        checked += 1
    assert checked > 0


def test_a_sample_has_its_sigma_wherever_it_stands_in_a_batch() -> None:
    rule = rule_of()
    batch = rule.sigmas(5, range(10, 16))
    assert batch.dtype == torch.float32
    assert torch.equal(batch[3:5], rule.sigmas(5, [13, 14]))
    assert not torch.equal(batch, rule.sigmas(6, range(10, 16)))
