"""From the VAE's latents to the transformer's input: scaling, and the channels of its conditions."""

from __future__ import annotations

import torch
from torch import Tensor

SCALING_FACTOR = 1.03682
"""Scales the VAE's posterior mode to about unit variance; from the VAE's published config."""


def scale(latents: Tensor) -> Tensor:
    """Convert latents of any shape from the VAE's scale, in which they are stored, to the transformer's."""
    return latents * SCALING_FACTOR


def unscale(latents: Tensor) -> Tensor:
    """Convert latents of any shape from the transformer's scale back to the VAE's."""
    return latents / SCALING_FACTOR


def condition_channels(first_latent: Tensor | None, like: Tensor) -> Tensor:
    """Return the C condition channels and the mask, which follow the C noisy channels in the transformer's input.

    Args:
        first_latent: scaled latent of the first frame, [B, C, H, W] or [B, C, 1, H, W], for i2v; None for t2v.
        like: the noisy latents [B, C, F, H, W]; gives shape, dtype and device.

    Returns:
        [B, C + 1, F, H, W]: for i2v, the latent and a mask of 1 at frame 0 and zeros elsewhere; for t2v, all zeros.
    """
    batch, channels, frames, height, width = like.shape
    out = torch.zeros(batch, channels + 1, frames, height, width, dtype=like.dtype, device=like.device)
    if first_latent is not None:
        frame = first_latent[:, :, 0] if first_latent.ndim == 5 else first_latent
        out[:, :channels, 0] = frame.to(like.dtype)  # (B, C, H, W)
        out[:, channels, 0] = 1
    return out


def low_resolution_channels(low: Tensor | None, like: Tensor) -> Tensor:
    """Return the C + 1 channels that follow in the input of super resolution: low-resolution latents and their mask.

    Args:
        low: scaled latents of the small video at the target size, with noise, [B, C, F, H, W]; None switches them off.
        like: the noisy latents [B, C, F, H, W]; gives shape, dtype and device.

    Returns:
        [B, C + 1, F, H, W]: the latents and a mask of 1 in all frames; all zeros if they are off.
    """
    batch, channels, frames, height, width = like.shape
    out = torch.zeros(batch, channels + 1, frames, height, width, dtype=like.dtype, device=like.device)
    if low is not None:
        out[:, :channels] = low.to(like.dtype)
        out[:, channels] = 1
    return out
