"""Converts pixels between bytes, as in image and video files, and the VAE's [B, 3, F, H, W] of about [-1, 1].

Both directions work frame by frame, because an fp32 copy of a whole clip would be larger than the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from hv15.models.vae import VAE


def from_bytes(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert uint8 [B, F, H, W, 3] to [B, 3, F, H, W]; computed in fp32, because half precision would round greys."""
    batch, count, height, width, channels = frames.shape
    pixels = torch.empty(batch, channels, count, height, width, dtype=dtype, device=frames.device)
    for source, target in zip(frames.unbind(1), pixels.unbind(2), strict=True):
        target.copy_(rearrange(source, "b h w c -> b c h w").float().div_(127.5).sub_(1))
    return pixels


def to_bytes(pixels: Tensor) -> Tensor:
    """Convert [B, 3, F, H, W] to uint8 [B, F, H, W, 3]; values outside [-1, 1] are clamped."""
    batch, channels, count, height, width = pixels.shape
    frames = torch.empty(batch, count, height, width, channels, dtype=torch.uint8, device=pixels.device)
    for source, target in zip(pixels.unbind(2), frames.unbind(1), strict=True):
        levels = source.to(torch.float32, copy=True).div_(2).add_(0.5).clamp_(0, 1).mul_(255).round_()
        target.copy_(rearrange(levels, "b c h w -> b h w c"))
    return frames


def encode_clips(vae: VAE, clips: Tensor, tile_size: int, overlap: float) -> Tensor:
    """Encode clips, uint8 [B, F, H, W, 3] on the VAE's device, to unscaled latents [B, C, F', H/16, W/16]."""
    return vae.encode(from_bytes(clips, vae.dtype), tile_size=tile_size, overlap=overlap)
