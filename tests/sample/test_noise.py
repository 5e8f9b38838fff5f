"""The starting noise follows the official rule: a seed means the same video in both programs."""

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.testing import assert_close

from hv15.sample.noise import initial_noise

SHAPE = (1, 32, 3, 6, 10)


def test_the_numbers_of_the_official_draw():
    """diffusers' randn_tensor is what the official pipeline calls, with the transformer's dtype."""
    generator = torch.Generator("cpu").manual_seed(123)
    official = randn_tensor(SHAPE, generator=generator, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert_close(initial_noise(SHAPE, 123), official.float(), atol=0, rtol=0)


def test_it_is_standard_normal_and_repeats():
    noise = initial_noise((1, 32, 9, 30, 52), 7)
    assert noise.dtype == torch.float32
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
    assert torch.equal(noise, initial_noise((1, 32, 9, 30, 52), 7))
    assert not torch.equal(noise, initial_noise((1, 32, 9, 30, 52), 8))


def test_it_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    initial_noise(SHAPE, 1)
    assert torch.equal(torch.rand(3), expected)
