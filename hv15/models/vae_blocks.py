"""Building blocks of the causal video VAE, working chunk by chunk.

- Every convolution looks only back in time, so a clip runs through the network in chunks of frames: the first frame
  alone, then any number of whole groups of frames. The numbers do not depend on the chunks; the memory does.
- Replicated frames before the first one make its three temporal taps see the same frame: one 2-D convolution with
  the summed weights. An image costs a third.
- Without gradients the blocks write into their own buffers; with gradients the same formulas run out of place.

Attribute names are those of the official checkpoint. Shapes are [B, C, F, H, W]; formulas as in the official
implementation (AutoencoderKLConv3D).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_NORM_BYTES = 64 << 20
"""Half-precision input that a norm takes at a time: its fp32 copies need several times as much."""


@dataclass
class Stream:
    """What a network keeps between the chunks of one clip."""

    tracked: bool
    """Gradients are wanted: nothing may be overwritten."""
    first: bool = True
    """This chunk is the first frame (and only that)."""
    last: bool = False
    """No chunk follows: nothing needs to be kept."""
    kept: dict[nn.Module, Tensor] = field(default_factory=dict)
    """For each module what it needs of the frames before this chunk."""

    def add(self, fresh: Tensor, other: Tensor) -> Tensor:
        """fresh + other, into `fresh` where that is allowed."""
        return fresh + other if self.tracked else fresh.add_(other)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype for sums: at least float32 (squares of small fp16 values underflow to 0 and give NaN)."""
    return torch.promote_types(dtype, torch.float32)


class Norm(nn.Module):
    """x / max(|x|, 1e-12) * sqrt(C) * gamma with the length |x| over channels, in fp32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """[B, C, F, H, W] -> the same shape and dtype; `silu` applies the activation before the cast back."""
        if torch.is_grad_enabled() and (x.requires_grad or self.gamma.requires_grad):
            wide = x.to(_wide(x.dtype))
            y = wide * _reciprocal_length(wide) * self.gamma
            return (F.silu(y) if silu else y).to(x.dtype)
        if x.dtype == _wide(x.dtype):
            return self._overwriting(x, silu)
        out = torch.empty_like(x)
        frames = max(1, _NORM_BYTES * x.shape[2] // x.nbytes)
        for part, target in zip(x.split(frames, dim=2), out.split(frames, dim=2), strict=True):
            target.copy_(self._overwriting(part.float(), silu))
        return out

    def _overwriting(self, x: Tensor, silu: bool) -> Tensor:
        y = (x * _reciprocal_length(x)).mul_(self.gamma)
        return F.silu(y, inplace=True) if silu else y


def _reciprocal_length(x: Tensor) -> Tensor:
    """sqrt(C) / max(|x|, 1e-12) over channels: [B, C, F, H, W] -> [B, 1, F, H, W]."""
    # square-and-sum is vectorised over the inner axes; a vector norm along axis 1 is 30 times slower on a CPU
    return x.shape[1] ** 0.5 / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)


class CausalConv3d(nn.Module):
    """3x3x3 convolution; borders are replicated: one pixel on each side, two frames before and none after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3)

    def forward(self, x: Tensor, stream: Stream, halved: int = 0) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F, H, W].

        `halved`: of the first frame only the first half of each of that many groups of C_out is wanted.
        """
        past = stream.kept.pop(self, None)
        x = _with_border(x, past, stream.tracked)  # (B, C_in, F + 2, H + 2, W + 2), without the 2 at the first frame
        if not stream.last:
            recent = x.expand(-1, -1, 2, -1, -1) if stream.first else x[:, :, -2:]
            # a copy, because a view would keep the whole buffer alive
            stream.kept[self] = recent if stream.tracked else recent.clone()
        return self._first_frame(x[:, :, 0], stream, halved).unsqueeze(2) if stream.first else self.conv(x)

    def _first_frame(self, x: Tensor, stream: Stream, halved: int) -> Tensor:
        """[B, C_in, H + 2, W + 2] -> [B, C_out or C_out/2, H, W]."""
        weight, bias = self.conv.weight, self.conv.bias
        if halved:
            weight = weight.unflatten(0, (halved, 2, -1))[:, 0]
            bias = None if bias is None else bias.unflatten(0, (halved, 2, -1))[:, 0].flatten()
        oldest, middle, newest = weight.unbind(-3)
        if stream.tracked:
            total = oldest.to(_wide(oldest.dtype)) + middle + newest
        else:
            total = oldest.to(_wide(oldest.dtype), copy=True).add_(middle).add_(newest)
        return F.conv2d(x, total.to(x.dtype).reshape(-1, *total.shape[-3:]), bias)


def _with_border(x: Tensor, past: Tensor | None, tracked: bool) -> Tensor:
    """Put kept frames before x and replicate the outermost pixels: one copy instead of those of cat and pad."""
    if tracked:
        x = F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate")
        return x if past is None else torch.cat([past, x], dim=2)
    batch, channels, frames, height, width = x.shape
    kept = 0 if past is None else past.shape[2]
    out = x.new_empty(batch, channels, kept + frames, height + 2, width + 2)
    if past is not None:
        out[:, :, :kept] = past
    new = out[:, :, kept:]
    new[..., 1:-1, 1:-1] = x
    new[..., 0, 1:-1] = x[..., 0, :]
    new[..., -1, 1:-1] = x[..., -1, :]
    new[..., 0] = new[..., 1]
    new[..., -1] = new[..., -2]
    return out


class ResBlock(nn.Module):
    """norm, SiLU, conv, twice, beside the identity (a 1x1x1 convolution where the number of channels changes)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = Norm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = Norm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.nin_shortcut = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F, H, W]."""
        h = self.conv1(self.norm1(x, silu=True), stream)
        h = self.conv2(self.norm2(h, silu=True), stream)
        return stream.add(h, x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nn.Module):
    """Single-head attention over all positions of the frame itself and of the frames before it.

    Frames are attended one by one, so no mask over all positions is ever built.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.q = nn.Conv3d(channels, channels, 1)
        self.k = nn.Conv3d(channels, channels, 1)
        self.v = nn.Conv3d(channels, channels, 1)
        self.proj_out = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C, F, H, W] -> the same shape."""
        frames, height, width = x.shape[2:]
        area = height * width
        tokens = rearrange(self.norm(x), "b c f h w -> b 1 (f h w) c")
        query = _pointwise(self.q, tokens)
        key_value = torch.stack([_pointwise(self.k, tokens), _pointwise(self.v, tokens)])  # (2, B, 1, F*H*W, C)
        if (past := stream.kept.pop(self, None)) is not None:
            key_value = torch.cat([past, key_value], dim=3)
        if not stream.last:
            stream.kept[self] = key_value
        key, value = key_value.unbind(0)
        before = key.shape[2] // area - frames  # frames of earlier chunks
        out = [
            F.scaled_dot_product_attention(
                query[:, :, i * area : (i + 1) * area],
                key[:, :, : (before + i + 1) * area],
                value[:, :, : (before + i + 1) * area],
            )
            for i in range(frames)
        ]
        h = _pointwise(self.proj_out, torch.cat(out, dim=2))
        h = rearrange(h, "b 1 (f h w) c -> b c f h w", f=frames, h=height)
        return stream.add(h, x)


def _pointwise(conv: nn.Conv3d, tokens: Tensor) -> Tensor:
    """A 1x1x1 convolution on tokens [..., C]."""
    return F.linear(tokens, conv.weight.flatten(1), conv.bias)


class Downsample(nn.Module):
    """Halves height and width (and frames, but for the first): pixels move into channels, with an averaged shortcut.

    The rearrangement orders channels as (time, row, column, channel).
    """

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        factor = 8 if temporal else 4
        self.conv = CausalConv3d(in_channels, out_channels // factor)
        self.temporal = temporal
        self.group = factor * in_channels // out_channels  # channels of x that make one of the shortcut

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F or F/2, H/2, W/2]."""
        h = self.conv(x, stream)
        if self.temporal and stream.first:
            h = _space_to_channels(h, 1).repeat(1, 2, 1, 1, 1)
            return stream.add(h, _space_to_channels(group_mean(x, self.group // 2), 1))
        # A group never spans two pixels, so the mean may come before the rearrangement.
        return _space_to_channels(stream.add(h, group_mean(x, self.group)), 2 if self.temporal else 1)


class Upsample(nn.Module):
    """Doubles height and width (and frames, but for the first): channels move into pixels, with a repeated shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        factor = 8 if temporal else 4
        self.conv = CausalConv3d(in_channels, out_channels * factor)
        self.temporal = temporal
        self.repeats = factor * out_channels // in_channels

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F or 2*F, 2*H, 2*W]."""
        if self.temporal and stream.first:
            # One frame comes of the first: of each of the four pixels' 2*C_out channels the first half.
            h = self.conv(x, stream, halved=4)
            return _channels_to_space(add_repeated(h, x, self.repeats // 2, stream), 1)
        h = self.conv(x, stream)
        return _channels_to_space(add_repeated(h, x, self.repeats, stream), 2 if self.temporal else 1)


def group_mean(x: Tensor, size: int) -> Tensor:
    """Mean over consecutive groups of `size` channels: [B, C, ...] -> [B, C/size, ...]."""
    return x.unflatten(1, (-1, size)).mean(2) if size > 1 else x


def add_repeated(h: Tensor, x: Tensor, repeats: int, stream: Stream) -> Tensor:
    """h [B, C*repeats, ...] plus x [B, C, ...] with each channel repeated in place; the repetition is not stored."""
    return stream.add(h.unflatten(1, (-1, repeats)), x.unsqueeze(2)).flatten(1, 2)


def _space_to_channels(x: Tensor, frames: int) -> Tensor:
    return rearrange(x, "b c (f t) (h p) (w q) -> b (t p q c) f h w", t=frames, p=2, q=2)


def _channels_to_space(x: Tensor, frames: int) -> Tensor:
    return rearrange(x, "b (t p q c) f h w -> b c (f t) (h p) (w q)", t=frames, p=2, q=2)
