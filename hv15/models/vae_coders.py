"""Encoder and decoder of the VAE: five levels with a frame-causal attention at the narrow end.

Shapes are [B, C, F, H, W]; both take one chunk of a clip at a time (see `vae_blocks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from hv15.grid import FRAMES_PER_CELL, PIXELS_PER_CELL
from hv15.models.vae_blocks import (
    CausalConv3d,
    Downsample,
    FrameAttention,
    Norm,
    ResBlock,
    Stream,
    Upsample,
    add_repeated,
    group_mean,
)
from hv15.models.weights.module import Module


@dataclass(frozen=True)
class VAEConfig:
    """All sizes of the VAE; the defaults are those of HunyuanVideo 1.5."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 32
    block_out_channels: tuple[int, ...] = (128, 256, 512, 1024, 1024)
    layers_per_block: int = 2
    """Residual blocks in each level of the encoder; the decoder has one more."""
    ffactor_spatial: int = PIXELS_PER_CELL
    ffactor_temporal: int = FRAMES_PER_CELL

    def __post_init__(self) -> None:
        widths = self.block_out_channels
        if 2**self.halvings != self.ffactor_spatial or self.halvings >= len(widths):
            raise ValueError(f"ffactor_spatial {self.ffactor_spatial} does not fit {len(widths)} levels {widths}")
        if 2**self.time_halvings != self.ffactor_temporal or self.time_halvings > self.halvings:
            raise ValueError(
                f"ffactor_temporal {self.ffactor_temporal} does not fit ffactor_spatial {self.ffactor_spatial}"
            )
        if widths[-1] % (2 * self.latent_channels):
            raise ValueError(
                f"last width {widths[-1]} must be a multiple of 2 x {self.latent_channels} latent channels"
            )
        for level, (width, following) in enumerate(pairwise(widths[: self.halvings + 1])):
            factor = 8 if self.encoder_halves_time(level) else 4
            if following % factor or factor * width % following or (factor == 8 and factor * width // following % 2):
                raise ValueError(f"widths {width} and {following} of levels {level} and {level + 1} do not divide")

    @property
    def halvings(self) -> int:
        """Number of levels that halve height and width."""
        return self.ffactor_spatial.bit_length() - 1

    @property
    def time_halvings(self) -> int:
        """Number of levels that halve the frames too: the last ones of the encoder, the first ones of the decoder."""
        return self.ffactor_temporal.bit_length() - 1

    def encoder_halves_time(self, level: int) -> bool:
        """Whether the step from this level of the encoder to the next halves the frames."""
        return self.halvings - self.time_halvings <= level < self.halvings


class Level(Module):
    """Residual blocks of one width, then a change of resolution (not at the last level)."""

    block: nn.ModuleList

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(width, width) for _ in range(layers))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C, F, H, W] -> the next level's shape."""
        for block in self.block:
            x = block(x, stream)
        if self.downsample is not None:
            x = self.downsample(x, stream)
        if self.upsample is not None:
            x = self.upsample(x, stream)
        return x


class Mid(Module):
    """Residual block, attention, residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width)
        self.attn_1 = FrameAttention(width)
        self.block_2 = ResBlock(width, width)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C, F, H, W] -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x, stream), stream), stream)


class Encoder(Module):
    """Encodes pixels into the moments (mean and log variance) of the latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down = nn.ModuleList(Level(width, config.layers_per_block) for width in widths)
        for level in range(config.halvings):
            temporal = config.encoder_halves_time(level)
            self.down[level].downsample = Downsample(widths[level], widths[level + 1], temporal=temporal)
        self.mid = Mid(widths[-1])
        self.norm_out = Norm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)
        self.group = widths[-1] // (2 * config.latent_channels)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, 3, F, H, W] -> [B, 2*latent, F', H/16, W/16]; F' is 1 for the first frame, else F/4."""
        x = self.conv_in(x, stream)
        for level in self.down:
            x = level(x, stream)
        x = self.mid(x, stream)
        return stream.add(self.conv_out(x, stream, self.norm_out), group_mean(x, self.group))


class Decoder(Module):
    """Decodes latents into pixels."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid = Mid(widths[0])
        self.up = nn.ModuleList(Level(width, config.layers_per_block + 1) for width in widths)
        for level in range(config.halvings):
            temporal = level < config.time_halvings
            self.up[level].upsample = Upsample(widths[level], widths[level + 1], temporal=temporal)
        self.norm_out = Norm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)
        self.repeats = widths[0] // config.latent_channels

    def forward(self, z: Tensor, stream: Stream) -> Tensor:
        """[B, latent, F', h, w] -> [B, 3, F, 16*h, 16*w], not clamped."""
        return self.widened(self.narrow(z, stream), stream)

    def narrow(self, z: Tensor, stream: Stream) -> Tensor:
        """[B, latent, F', h, w] -> [B, widest, F', h, w]: the part whose attention sees whole frames."""
        return self.mid(add_repeated(self.conv_in(z, stream), z, self.repeats, stream), stream)

    def widened(self, x: Tensor, stream: Stream, cuts: Sequence[tuple[slice, slice]] | None = None) -> Tensor:
        """[B, widest, F', h, w] -> [B, 3, F, 16*h, 16*w], not clamped: the part of convolutions, which see neighbours.

        Args:
            cuts: the rows and columns that are kept of each level's output, and then of the pixels; None: all.
        """
        for number, level in enumerate(self.up):
            x = level(x, stream)
            if cuts is not None:
                x = x[..., cuts[number][0], cuts[number][1]].contiguous()
        x = self.conv_out(x, stream, self.norm_out)
        return x if cuts is None else x[..., cuts[-1][0], cuts[-1][1]]
