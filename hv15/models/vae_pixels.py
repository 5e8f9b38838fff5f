"""Between pixels in bytes, as on disk and in files, and pixels as the VAE has them: [B, 3, F, H, W], about [-1, 1].

Both work frame by frame: copies of a whole clip in fp32 would be larger than the clip that is wanted.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def from_bytes(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn uint8 [B, F, H, W, 3] into [B, 3, F, H, W]; computed in fp32, because half precision would round greys."""
    batch, count, height, width, channels = frames.shape
    pixels = torch.empty(batch, channels, count, height, width, dtype=dtype, device=frames.device)
    for source, target in zip(frames.unbind(1), pixels.unbind(2), strict=True):
        target.copy_(rearrange(source, "b h w c -> b c h w").float().div_(127.5).sub_(1))
    return pixels


def to_bytes(pixels: Tensor) -> Tensor:
    """Turn [B, 3, F, H, W] into uint8 [B, F, H, W, 3]; values beyond [-1, 1] are clamped."""
    batch, channels, count, height, width = pixels.shape
    frames = torch.empty(batch, count, height, width, channels, dtype=torch.uint8, device=pixels.device)
    for source, target in zip(pixels.unbind(2), frames.unbind(1), strict=True):
        levels = source.to(torch.float32, copy=True).div_(2).add_(0.5).clamp_(0, 1).mul_(255).round_()
        target.copy_(rearrange(levels, "b c h w -> b h w c"))
    return frames
