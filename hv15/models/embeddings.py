"""Layers that bring the inputs to the transformer's width: patches, time, quoted text (ByT5) and the first image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.models.weights.module import Module

SINUSOID_DIM = 256


def timestep_sinusoid(timestep: Tensor, dim: int = SINUSOID_DIM, max_period: float = 10_000.0) -> Tensor:
    """Cosines then sines of timestep * max_period^(-i / (dim/2)), as in the official implementation.

    Args:
        timestep: [B], 1000 * sigma, not rounded.

    Returns:
        [B, dim] fp32.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[:, None] * torch.exp(-math.log(max_period) * index / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedder(Module):
    """The sinusoid of the timestep, passed through a small MLP: [B] -> [B, hidden]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(SINUSOID_DIM, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        # The sinusoid needs fp32: bf16 would round a timestep of 731.25 to 732.
        return self.mlp(timestep_sinusoid(timestep).to(dtype))


class PatchEmbed(Module):
    """One token for each latent position: [B, C, F, H, W] -> [B, F*H*W, hidden]."""

    def __init__(self, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, hidden_size, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous, with each token's channels side by side in memory: later operations are faster.
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()


class GlyphMapper(Module):
    """ByT5 states of the quoted text: [B, G, glyph_dim] -> [B, G, hidden]."""

    def __init__(self, glyph_dim: int, glyph_hidden: int, hidden_size: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(glyph_dim, eps=1e-5)
        self.fc1 = nn.Linear(glyph_dim, glyph_hidden)
        self.fc2 = nn.Linear(glyph_hidden, glyph_hidden)
        self.fc3 = nn.Linear(glyph_hidden, hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        x = F.gelu(self.fc1(self.layernorm(states)))
        return self.fc3(F.gelu(self.fc2(x)))


class VisionProjection(Module):
    """SigLIP states of the first image: [B, 729, vision_dim] -> [B, 729, hidden]."""

    def __init__(self, vision_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(vision_dim, eps=1e-5),
            nn.Linear(vision_dim, vision_dim),
            nn.GELU(),
            nn.Linear(vision_dim, hidden_size),
            nn.LayerNorm(hidden_size, eps=1e-5),
        )

    def forward(self, states: Tensor) -> Tensor:
        return self.proj(states)
