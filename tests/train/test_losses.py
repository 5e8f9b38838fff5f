"""Losses against torch's own."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from hv15.config import TrainSettings
from hv15.config.training.loss import LossType
from hv15.train.losses import LossFunction, mean_square

pytestmark = pytest.mark.numeric

SIGMA = torch.tensor([0.0, 0.25, 1.0])


def function(**options: Any) -> LossFunction:
    return LossFunction(TrainSettings(**options))


def errors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 2, 5, 6, generator=generator)


def constant(loss_type: LossType, c: float) -> LossFunction:
    return function(loss_type=loss_type, huber_schedule="constant", huber_c=c)


def test_mse_is_that_of_torch_for_each_sample() -> None:
    error = errors()
    losses = function()(error, SIGMA)
    for i in range(3):
        assert_close(losses.minimised[i], functional.mse_loss(error[i], torch.zeros_like(error[i])))
    assert torch.equal(losses.recorded, losses.minimised)
    assert not function()(error.requires_grad_(), SIGMA).recorded.requires_grad


@pytest.mark.parametrize("c", [0.05, 0.7, 3.0])
def test_huber_and_smooth_l1_are_those_of_torch(c: float) -> None:
    error = errors()
    nothing = torch.zeros_like(error)
    huber = 2 * functional.huber_loss(error, nothing, delta=c, reduction="none")
    smooth = 2 * functional.smooth_l1_loss(error, nothing, beta=c, reduction="none")
    assert_close(constant("huber", c)(error, SIGMA).minimised, huber.flatten(1).mean(1))
    assert_close(constant("smooth_l1", c)(error, SIGMA).minimised, smooth.flatten(1).mean(1))


@pytest.mark.parametrize("c", [0.05, 0.7, 3.0])
def test_pseudo_huber_is_that_of_its_paper(c: float) -> None:
    error = errors()
    smooth = 2 * ((error.double().square() + c**2).sqrt() - c).flatten(1).mean(1)
    assert_close(constant("smooth_pseudo_huber", c)(error, SIGMA).minimised, smooth.float())
    assert_close(constant("pseudo_huber", c)(error, SIGMA).minimised, (c * smooth).float())


@pytest.mark.parametrize("loss_type", [name for name in get_args(LossType) if name != "mse"])
def test_gradients_are_those_of_the_formula_and_bounded(loss_type: LossType) -> None:
    error = torch.tensor([-50.0, -0.3, 0.0, 1e-4, 0.3, 50.0]).view(6, 1, 1, 1, 1).requires_grad_()
    constant(loss_type, 0.3)(error, torch.zeros(6)).minimised.sum().backward()
    assert error.grad is not None
    found = error.grad.flatten()
    linear = 2.0 if loss_type.startswith("smooth") else 2 * 0.3
    assert_close(found[[0, 2, 5]], torch.tensor([-linear, 0.0, linear]), rtol=1e-4, atol=1e-6)
    assert_close(found[1], -found[4])
    corner = torch.tensor(linear / 2**0.5 if "pseudo" in loss_type else linear)
    assert_close(found[4], corner)


@pytest.mark.parametrize("loss_type", ["huber", "pseudo_huber"])
def test_small_errors_count_as_their_square(loss_type: LossType) -> None:
    """So learning rates and limits of the gradient's norm need no other values."""
    error = errors() * 1e-3
    assert_close(constant(loss_type, 1.0)(error, SIGMA).minimised, mean_square(error), rtol=1e-4, atol=0)


def test_the_corner_follows_its_schedule() -> None:
    sigma = torch.tensor([0.0, 0.5, 0.9, 1.0])
    assert_close(function(huber_schedule="constant").corner(sigma), torch.full((4,), 0.1))
    exponential = function(huber_schedule="exponential").corner(sigma)
    assert_close(exponential, torch.exp(torch.log(torch.tensor(0.1)) * sigma))
    by_snr = function(huber_schedule="snr").corner(sigma)
    noise_to_data = sigma / (1 - sigma)  # 1 / sqrt(SNR)
    assert_close(by_snr, 0.9 / (1 + noise_to_data) ** 2 + 0.1)
    assert_close(by_snr[[0, 3]], torch.tensor([1.0, 0.1]))


def test_each_sample_has_the_corner_of_its_sigma() -> None:
    error = errors()
    scheduled = function(loss_type="huber", huber_schedule="exponential", huber_c=0.1)(error, SIGMA).minimised
    for i, c in enumerate((1.0, 0.1**0.25, 0.1)):
        assert_close(scheduled[i], constant("huber", c)(error, SIGMA).minimised[i])


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_what_is_recorded_is_always_the_mean_square(loss_type: LossType) -> None:
    error = errors().requires_grad_()
    losses = function(loss_type=loss_type)(error, SIGMA)
    assert_close(losses.recorded, mean_square(error.detach()))
    assert losses.minimised.requires_grad
    assert not losses.recorded.requires_grad
