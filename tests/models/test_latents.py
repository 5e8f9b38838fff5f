from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hv15.models.latents import condition_channels, scale, unscale


def test_scale_is_the_published_factor():
    latents = torch.randn(2, 4, 3, 5, 6)
    assert_close(scale(torch.ones(1)), torch.tensor([1.03682]))
    assert_close(unscale(scale(latents)), latents)


def test_condition_of_text_to_video_is_zero():
    like = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    channels = condition_channels(None, like)
    assert channels.shape == (2, 5, 3, 5, 6)
    assert channels.dtype == torch.float64
    assert not channels.any()


@pytest.mark.parametrize("with_time_axis", [False, True])
def test_condition_of_image_to_video_is_the_first_latent_and_its_mask(with_time_axis: bool):
    like = torch.randn(2, 4, 3, 5, 6)
    first = torch.randn(2, 4, 5, 6)
    channels = condition_channels(first.unsqueeze(2) if with_time_axis else first, like)
    assert torch.equal(channels[:, :4, 0], first)
    assert channels[:, 4, 0].eq(1).all()
    assert not channels[:, :, 1:].any()
