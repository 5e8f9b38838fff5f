"""Each rule against its distribution in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from hv15.config.train import TrainSettings
from hv15.config.training.timesteps import TimestepSampling
from hv15.models.noise_levels import shifted
from hv15.train.timesteps import SigmaRule

SAMPLES = range(4000)


def rule_of(timestep_sampling: TimestepSampling = "shift", **options: float) -> SigmaRule:
    return SigmaRule.from_settings(TrainSettings(timestep_sampling=timestep_sampling, **options))


def logit(values: np.ndarray) -> np.ndarray:
    return np.log(values) - np.log1p(-values)


def shifted_back(sigma: np.ndarray, shift: float) -> np.ndarray:
    return sigma / (shift - (shift - 1) * sigma)


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
    ],
)
def test_distribution(rule: SigmaRule, probability: object) -> None:
    sigmas = rule.sigmas(11, SAMPLES).double().numpy()
    assert stats.kstest(sigmas, probability).pvalue > 1e-3


@pytest.mark.parametrize("name", ["shift", "sigmoid", "uniform", "logit_normal"])
def test_the_range_is_kept_in_its_direction(name: TimestepSampling) -> None:
    """min_timestep cuts off clean latents, max_timestep noise; the order of the rule is not reversed."""
    narrow, wide = rule_of(name, min_timestep=100, max_timestep=600), rule_of(name)
    low, full = narrow.sigmas(3, range(500)), wide.sigmas(3, range(500))
    assert low.min() >= 0.1
    assert low.max() <= 0.6
    torch.testing.assert_close(low, 0.1 + 0.5 * full)


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
