"""The sizes of the transformer. Does not need torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer; the defaults are the real model's (8,326,608,160 parameters)."""

    hidden_size: int = 2048
    num_heads: int = 16
    num_blocks: int = 54
    mlp_ratio: float = 4.0
    """Width of the blocks' MLPs in hidden sizes."""
    rope_dims: tuple[int, int, int] = (16, 56, 56)
    """Channels of each head that RoPE rotates by latent frame, row and column; their sum is the head's width."""
    rope_theta: float = 256.0
    latent_channels: int = 32
    text_dim: int = 3584
    glyph_dim: int = 1472
    glyph_hidden: int = 2048
    vision_dim: int = 1152
    refiner_blocks: int = 2
    refiner_mlp_ratio: float = 4.0
    """Width of the token refiner's MLPs in hidden sizes. The official code and diffusers always use 4."""
    meanflow: bool = False
    """Has a second time input, the end of the step (step-distilled checkpoints)."""
    low_resolution: bool = False
    """Also takes the latents of a low-resolution video, and their mask (super resolution)."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads}")
        if sum(self.rope_dims) != self.head_dim or any(dim % 2 for dim in self.rope_dims):
            raise ValueError(f"rope_dims {self.rope_dims} must be even and add up to the head width {self.head_dim}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        """Width of the blocks' MLPs."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def refiner_mlp_size(self) -> int:
        """Width of the token refiner's MLPs."""
        return int(self.hidden_size * self.refiner_mlp_ratio)

    @property
    def in_channels(self) -> int:
        """Noisy latents, condition latents, mask; for super resolution, low-resolution latents and their mask, too."""
        return (3 * self.latent_channels + 2) if self.low_resolution else (2 * self.latent_channels + 1)
