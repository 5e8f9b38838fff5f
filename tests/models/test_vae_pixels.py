"""Bytes to pixels and back: one rounding each way."""

import numpy as np
import pytest
import torch

from hv15.models.vae_pixels import from_bytes, to_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pixels_are_bytes_between_minus_one_and_one(dtype: torch.dtype):
    """x / 127.5 - 1 in fp32, rounded once; as the official program does before it casts."""
    frames = torch.arange(256, dtype=torch.uint8).repeat(2 * 3 * 3 // 2).view(1, 3, 16, -1, 3)
    expected = (frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(dtype)
    assert torch.equal(from_bytes(frames, dtype), expected)


def test_bytes_are_clamped_and_rounded_pixels():
    """clamp(x / 2 + 0.5, 0, 1) and 8 bits, against numpy; the given pixels stay as they are."""
    pixels = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    expected = np.rint(np.clip(pixels.numpy() / np.float32(2) + np.float32(0.5), 0, 1) * np.float32(255))
    assert torch.equal(to_bytes(pixels), torch.from_numpy(expected.astype(np.uint8)).permute(0, 2, 3, 4, 1))
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_there_and_back(dtype: torch.dtype):
    frames = torch.randint(0, 256, (1, 5, 16, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_bytes(from_bytes(frames, dtype)), frames)
