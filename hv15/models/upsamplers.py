"""The latent upsamplers of super resolution: they correct latents that were enlarged by interpolation.

- Two networks, one for each target resolution; both keep the size of their input.
- Both are causal in time and run in chunks of frames, as the VAE does: each convolution keeps two frames of history.
- Input and result are in the transformer's scale, and weights in float32, as in the official program.

Attributes have the official checkpoints' key names. Shapes are [B, C, F, H, W].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.choices import EnlargedResolution
from hv15.models.vae_blocks import CausalConv3d, Norm, ResBlock, Stream, add_repeated, chunks
from hv15.models.weights.module import Module

_CHUNK_BYTES = {"cpu": 16 << 20}
_CHUNK_BYTES_ELSEWHERE = 64 << 20
"""Intended size of the widest activation of a chunk; a network needs several times as much, and its history."""


class LatentUpsampler(Module, ABC):
    """What both networks have in common.

    Args:
        channels: of the latents.
        widest: channels of the widest activation.
    """

    resolution: ClassVar[EnlargedResolution]
    """That of the enlarged video."""

    def __init__(self, channels: int, widest: int) -> None:
        super().__init__()
        self.channels, self.widest = channels, widest

    @abstractmethod
    def corrected(self, x: Tensor, stream: Stream) -> Tensor:
        """Return one chunk [B, C, F, H, W], corrected; the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Correct enlarged latents [B, C, F, H, W] in the transformer's scale; the same shape."""
        if x.ndim != 5 or x.shape[1] != self.channels or 0 in x.shape:
            raise ValueError(f"latents of shape {list(x.shape)}: expected [B, {self.channels}, F, H, W]")
        tracked = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        stream = Stream(tracked)
        return torch.cat([self.corrected(chunk, stream) for chunk in chunks(x, self.chunk_frames(x), stream)], dim=2)

    if TYPE_CHECKING:
        __call__ = forward  # torch declares that a module takes and gives anything

    def chunk_frames(self, x: Tensor) -> int:
        """Return the number of latent frames in a chunk of x [B, C, F, H, W]."""
        frame = x.shape[0] * self.widest * x.shape[3] * x.shape[4] * x.element_size()
        return max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES_ELSEWHERE) // frame)


@dataclass(frozen=True)
class Upsampler720Config:
    """Sizes of the network for 720p; the defaults are those that the published file is thought to have."""

    channels: int = 32
    hidden: int = 128
    blocks: int = 16
    global_residual: bool = False
    """Add the input to the result. Only config.json tells it."""


class Upsampler720(LatentUpsampler):
    """Residual blocks of one width, without norms."""

    resolution = "720p"

    def __init__(self, config: Upsampler720Config | None = None) -> None:
        c = config or Upsampler720Config()
        super().__init__(c.channels, c.hidden)
        self.config = c
        self.in_conv = CausalConv3d(c.channels, c.hidden)
        self.blocks = nn.ModuleList(ConvBlock(c.hidden) for _ in range(c.blocks))
        self.out_conv = CausalConv3d(c.hidden, c.channels)

    def corrected(self, x: Tensor, stream: Stream) -> Tensor:
        y = self.in_conv(x, stream)
        for block in self.blocks:
            y = block(y, stream)
        y = self.out_conv(y, stream)
        return stream.add(y, x) if self.config.global_residual else y


class ConvBlock(Module):
    """Three convolutions with SiLU in between, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Numbered as in the checkpoint, where the activations between them count too.
        self.block = nn.ModuleDict({number: CausalConv3d(width, width) for number in ("0", "2", "4")})

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C, F, H, W] -> the same shape."""
        h = self.block["0"](x, stream)
        for number in ("2", "4"):
            h = self.block[number](F.silu(h, inplace=not stream.tracked), stream)
        return stream.add(h, x)


@dataclass(frozen=True)
class Upsampler1080Config:
    """Sizes of the network for 1080p; the defaults are those that the published file is thought to have."""

    channels: int = 32
    widths: tuple[int, ...] = (256, 512)
    """Channels of each level; the first is a multiple of `channels`."""
    layers: int = 3
    """Residual blocks in each level."""

    def __post_init__(self) -> None:
        if not self.widths or self.widths[0] % self.channels:
            raise ValueError(f"widths {self.widths}: the first must be a multiple of the {self.channels} channels")


class Upsampler1080(LatentUpsampler):
    """The VAE's residual blocks in levels of growing width, without a change of resolution."""

    resolution = "1080p"

    def __init__(self, config: Upsampler1080Config | None = None) -> None:
        c = config or Upsampler1080Config()
        super().__init__(c.channels, max(c.widths))
        self.config = c
        self.conv_in = CausalConv3d(c.channels, c.widths[0])
        before = pairwise((c.widths[0], *c.widths))
        self.up = nn.ModuleList(WideningLevel(narrow, width, c.layers) for narrow, width in before)
        self.norm_out = Norm(c.widths[-1])
        self.conv_out = CausalConv3d(c.widths[-1], c.channels)

    def corrected(self, x: Tensor, stream: Stream) -> Tensor:
        y = add_repeated(self.conv_in(x, stream), x, self.config.widths[0] // self.config.channels, stream)
        for level in self.up:
            y = level(y, stream)
        corrected: Tensor = self.conv_out(y, stream, self.norm_out)
        return corrected


class WideningLevel(Module):
    """Residual blocks, of which the first changes the width."""

    def __init__(self, in_width: int, width: int, layers: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(in_width if i == 0 else width, width) for i in range(layers))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C, F, H, W]."""
        for block in self.block:
            x = block(x, stream)
        return x
