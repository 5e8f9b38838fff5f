"""The line from data to noise."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hv15.train.flow import noisy, velocity

pytestmark = pytest.mark.numeric


def latents() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 4, 2, 5, 6), torch.randn(3, 4, 2, 5, 6)


def test_sigma_0_is_data_and_sigma_1_is_noise() -> None:
    x0, noise = latents()
    x = noisy(x0, noise, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(x[0], x0[0])
    assert torch.equal(x[1], noise[1])
    assert_close(x[2], 0.75 * x0[2] + 0.25 * noise[2])


def test_an_euler_step_along_the_velocity_leads_back_to_the_data() -> None:
    """The sampler adds velocity * (next sigma - sigma): with the true velocity it ends at x0 from any sigma."""
    x0, noise = latents()
    sigma = torch.tensor([0.9, 0.4, 0.05])
    x = noisy(x0, noise, sigma) + velocity(x0, noise) * (0 - sigma).view(3, 1, 1, 1, 1)
    assert_close(x, x0)


def test_velocity_is_the_derivative_by_sigma() -> None:
    x0, noise = (tensor.double() for tensor in latents())
    sigma, step = torch.full((3,), 0.3, dtype=torch.float64), 1e-6
    numeric = (noisy(x0, noise, sigma + step) - noisy(x0, noise, sigma - step)) / (2 * step)
    assert_close(numeric, velocity(x0, noise), atol=1e-8, rtol=0)
