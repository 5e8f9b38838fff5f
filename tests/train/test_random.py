"""Draws are named, not streamed."""

from __future__ import annotations

import torch

from hv15.train.random import chance, generator, noise, seed_for


def test_a_draw_depends_on_seed_purpose_and_index_and_on_nothing_else() -> None:
    first = torch.randn(4, generator=generator(1, "noise", 7))
    torch.manual_seed(99)
    torch.rand(1000)
    assert torch.equal(first, torch.randn(4, generator=generator(1, "noise", 7)))
    names = [(1, "noise", 7), (2, "noise", 7), (1, "sigma", 7), (1, "noise", 8), (1, "noise", 70)]
    assert len({seed_for(*name) for name in names}) == len(names)


def test_seeds_of_neighbours_are_unrelated() -> None:
    """A seed + index rule would give run 1, sample 1 the noise of run 2, sample 0."""
    noises = torch.stack([noise((4096,), seed, sample) for seed in range(4) for sample in range(4)])
    correlation = torch.corrcoef(noises) - torch.eye(16)
    assert correlation.abs().max() < 0.08  # 5 standard deviations of independent rows


def test_the_noise_of_a_sample_is_standard_normal_fp32() -> None:
    values = noise((32, 3, 40, 40), 5, 0)
    assert values.dtype == torch.float32
    assert abs(values.mean()) < 0.015
    assert abs(values.std() - 1) < 0.015


def test_chance_is_never_at_0_and_always_at_1_and_near_its_probability_between() -> None:
    assert not any(chance(0.0, 3, "i2v", i) for i in range(200))
    assert all(chance(1.0, 3, "i2v", i) for i in range(200))
    assert 0.26 < sum(chance(0.3, 3, "i2v", i) for i in range(3000)) / 3000 < 0.34
