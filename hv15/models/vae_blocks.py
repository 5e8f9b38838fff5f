"""Building blocks of the causal video VAE, which process a clip in chunks.

- Every convolution looks only back in time, so a clip runs through the network in chunks of frames: the first frame
  alone, then any number of whole groups of frames. The chunks affect the memory, not the numbers.
- The frames before the first frame are copies of it, so all three temporal taps see the same frame. That is one 2-D
  convolution with the summed weights, at a third of the cost.
- Without gradients the blocks write into their own buffers; with gradients the same formulas run out of place.
- To save memory, a convolution can work in strips of rows, together with the norm before it and the rearrangement
  after it. A strip sees the rows next to it, so the numbers are those of the whole frame (`vae_enable_patch_conv`).

Attribute names are those of the official checkpoint. Shapes are [B, C, F, H, W]; formulas as in the official
implementation (AutoencoderKLConv3D).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hv15.models.weights.module import Module

_NORM_BYTES = 64 << 20
"""Bytes of half-precision input that a norm processes at a time; its fp32 copies need several times as much."""


@dataclass
class Stream:
    """The state that a network keeps between the chunks of one clip."""

    tracked: bool
    """Gradients are needed, so nothing may be overwritten."""
    first: bool = True
    """This chunk is the first frame alone."""
    last: bool = False
    """No chunk follows, so nothing needs to be kept."""
    strip_bytes: int | None = None
    """Intended bytes of a convolution's input or output at a time; None: the whole chunk. Not with gradients."""
    kept: dict[nn.Module, Tensor] = field(default_factory=dict)
    """What each module needs of the frames before this chunk."""

    def add(self, fresh: Tensor, other: Tensor) -> Tensor:
        """Return fresh + other, both [B, C, F, H, W], written into `fresh` if that is allowed."""
        return fresh + other if self.tracked else fresh.add_(other)

    def strips(self, x: Tensor, channels: int) -> Iterator[tuple[slice, slice]]:
        """Yield the rows of x [B, C, F, H, W] to process at a time, and the same with their neighbours above and below.

        A strip has an even number of rows, so that downsampling never needs two strips for a pixel.

        Args:
            channels: of the convolution's input or output, whichever has more.
        """
        height, size = x.shape[3], x.shape[3]
        if self.strip_bytes is not None:
            row = channels * x.shape[0] * x.shape[2] * x.shape[4] * x.element_size()
            size = max(2, self.strip_bytes // row // 2 * 2)
        for top in range(0, height, size):
            bottom = min(top + size, height)
            yield slice(top, bottom), slice(max(top - 1, 0), min(bottom + 1, height))


def chunks(x: Tensor, size: int, stream: Stream) -> Iterator[Tensor]:
    """Yield the first frame of x [B, C, F, H, W], then chunks of `size` frames; mark the first and last in `stream`."""
    return (x[:, :, part] for part in chunk_slices(x.shape[2], size, stream))


def chunk_slices(frames: int, size: int, stream: Stream) -> Iterator[slice]:
    """Yield the first of the frames, then chunks of `size` frames; mark the first and the last in `stream`."""
    stream.last = frames == 1
    yield slice(0, 1)
    stream.first = False
    for start in range(1, frames, size):
        stream.last = start + size >= frames
        yield slice(start, min(start + size, frames))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums: at least float32, because squares of small fp16 values underflow to 0 and give NaN."""
    return torch.promote_types(dtype, torch.float32)


class Norm(Module):
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


Strips = Iterator[tuple[slice, Tensor]]
"""Parts of a result [B, C, F, rows, W], each with its rows."""


class Conv3d(nn.Conv3d):
    """Draws no start values on the meta device: that takes longer than to make the model otherwise."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class CausalConv3d(Module):
    """3x3x3 convolution; borders are replicated: one pixel on each side, two frames before and none after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, 3)

    def forward(self, x: Tensor, stream: Stream, norm: Norm | None = None) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F, H, W]; `norm`, if there is one, is applied to x first, with SiLU."""
        return joined(self.strips(x, stream, norm), x.shape[3])

    def strips(self, x: Tensor, stream: Stream, norm: Norm | None = None, halved: int = 0) -> Strips:
        """Yield the result for x [B, C_in, F, H, W] in strips of rows [B, C_out, F, rows, W], each its own tensor.

        There is one strip unless the stream asks for more.

        Args:
            halved: for the first frame, divide C_out into this many groups and compute the first half of each; 0: all.
        """
        past = stream.kept.pop(self, None)
        weight, bias = self._of_first_frame(stream, halved) if stream.first else (self.conv.weight, self.conv.bias)
        recent: Tensor | None = None
        for rows, seen in stream.strips(x, max(self.conv.in_channels, self.conv.out_channels)):
            part, before = x[..., seen, :], None if past is None else past[..., seen, :]
            if norm is not None:
                part = norm(part, silu=True)
            if not stream.last:
                own = part[..., rows.start - seen.start : rows.stop - seen.start, :]
                newest = _newest_frames(own, None if past is None else past[..., rows, :])
                if stream.tracked:
                    recent = newest
                else:  # a copy, because a view would keep the whole buffer alive
                    recent = newest.new_empty(*newest.shape[:3], *x.shape[3:]) if recent is None else recent
                    recent[..., rows, :] = newest
                del own, newest
            part = _with_border(part, before, rows.start == seen.start, rows.stop == seen.stop, stream.tracked)
            result = (
                F.conv2d(part[:, :, 0], weight, bias).unsqueeze(2) if stream.first else F.conv3d(part, weight, bias)
            )
            del part, before
            yield rows, result
        if recent is not None:
            stream.kept[self] = recent

    def _of_first_frame(self, stream: Stream, halved: int) -> tuple[Tensor, Tensor | None]:
        """Return weight [C_out or C_out/2, C_in, 3, 3] and bias for the first frame, which follows copies of itself."""
        weight, bias = self.conv.weight, self.conv.bias
        if halved:
            weight = weight.unflatten(0, (halved, 2, -1))[:, 0]
            bias = None if bias is None else bias.unflatten(0, (halved, 2, -1))[:, 0].flatten()
        oldest, middle, newest = weight.unbind(-3)
        if stream.tracked:
            total = oldest.to(_wide(oldest.dtype)) + middle + newest
        else:
            total = oldest.to(_wide(oldest.dtype), copy=True).add_(middle).add_(newest)
        return total.to(weight.dtype).reshape(-1, *total.shape[-3:]), bias


def joined(strips: Strips, height: int) -> Tensor:
    """Join strips into a result [B, C, F, height, W]; a strip of all rows is the result itself."""
    out: Tensor | None = None
    for rows, strip in strips:
        if rows.stop - rows.start == height:
            out = strip
        else:
            out = strip.new_empty(*strip.shape[:3], height, strip.shape[4]) if out is None else out
            out[..., rows, :] = strip
        del strip
    assert out is not None
    return out


def _newest_frames(x: Tensor, past: Tensor | None) -> Tensor:
    """Return the last two frames seen so far, or the only one."""
    if past is None or x.shape[2] > 1:
        return x[:, :, -2:]
    return torch.cat([past[:, :, -1:], x], dim=2)


def _with_border(x: Tensor, past: Tensor | None, top: bool, bottom: bool, tracked: bool) -> Tensor:
    """Put the kept frames (a single one twice) before x and replicate its outermost pixels.

    Rows are added at the top and bottom only where asked. Makes one copy, where cat and pad would make two.
    """
    if tracked:
        x = x if past is None else torch.cat([past.expand(-1, -1, 2, -1, -1), x], dim=2)
        return F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate")
    batch, channels, frames, height, width = x.shape
    kept = 0 if past is None else 2
    out = x.new_empty(batch, channels, kept + frames, height + top + bottom, width + 2)
    inner = out[..., int(top) : int(top) + height, 1:-1]
    if past is not None:
        inner[:, :, :kept] = past
    inner[:, :, kept:] = x
    if top:
        out[..., 0, 1:-1] = inner[..., 0, :]
    if bottom:
        out[..., -1, 1:-1] = inner[..., -1, :]
    out[..., 0] = out[..., 1]
    out[..., -1] = out[..., -2]
    return out


class ResBlock(Module):
    """Norm, SiLU and convolution, twice, added to the input (to its 1x1x1 convolution if the channels change)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = Norm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = Norm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.nin_shortcut = Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F, H, W]."""
        h = self.conv1(x, stream, self.norm1)
        if stream.strip_bytes is None or self.nin_shortcut is not None:
            h = self.conv2(h, stream, self.norm2)
            return stream.add(h, x if self.nin_shortcut is None else self.nin_shortcut(x))
        for rows, strip in self.conv2.strips(h, stream, self.norm2):
            x[..., rows, :].add_(strip)  # x may be overwritten: it is the previous layer's output and is not used again
        return x


class FrameAttention(Module):
    """Single-head attention over all positions of a frame and of the frames before it.

    Frames are computed one at a time, so no mask over all positions is needed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.q = Conv3d(channels, channels, 1)
        self.k = Conv3d(channels, channels, 1)
        self.v = Conv3d(channels, channels, 1)
        self.proj_out = Conv3d(channels, channels, 1)

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


def _pointwise(conv: Conv3d, tokens: Tensor) -> Tensor:
    """Apply a 1x1x1 convolution to tokens [..., C]."""
    return F.linear(tokens, conv.weight.flatten(1), conv.bias)


class Downsample(Module):
    """Halves height and width, and optionally frames after the first: pixels move into channels; averaged shortcut.

    The rearrangement orders channels as (time, row, column, channel).
    """

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        factor = 8 if temporal else 4
        self.conv = CausalConv3d(in_channels, out_channels // factor)
        self.temporal = temporal
        self.group = factor * in_channels // out_channels  # channels of x averaged into one of the shortcut

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F or F/2, H/2, W/2]."""
        smaller = (
            (slice(rows.start // 2, rows.stop // 2), self._rearranged(strip, x[..., rows, :], stream))
            for rows, strip in self.conv.strips(x, stream)
        )
        return joined(smaller, x.shape[3] // 2)

    def _rearranged(self, h: Tensor, x: Tensor, stream: Stream) -> Tensor:
        if self.temporal and stream.first:
            h = _space_to_channels(h, 1).repeat(1, 2, 1, 1, 1)
            return stream.add(h, _space_to_channels(group_mean(x, self.group // 2), 1))
        # A group never spans two pixels, so the mean can be taken before the rearrangement.
        return _space_to_channels(stream.add(h, group_mean(x, self.group)), 2 if self.temporal else 1)


class Upsample(Module):
    """Doubles height and width, and optionally frames after the first: channels move into pixels; repeated shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, temporal: bool) -> None:
        super().__init__()
        factor = 8 if temporal else 4
        self.conv = CausalConv3d(in_channels, out_channels * factor)
        self.temporal = temporal
        self.repeats = factor * out_channels // in_channels

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """[B, C_in, F, H, W] -> [B, C_out, F or 2*F, 2*H, 2*W]."""
        # The first frame stays one frame: it uses only the first half of each of the four pixels' 2*C_out channels.
        single = self.temporal and stream.first
        repeats, frames = (self.repeats // 2, 1) if single else (self.repeats, 2 if self.temporal else 1)
        larger = (
            (
                slice(2 * rows.start, 2 * rows.stop),
                _channels_to_space(add_repeated(strip, x[..., rows, :], repeats, stream), frames),
            )
            for rows, strip in self.conv.strips(x, stream, halved=4 if single else 0)
        )
        return joined(larger, 2 * x.shape[3])


def group_mean(x: Tensor, size: int) -> Tensor:
    """Average consecutive groups of `size` channels: [B, C, ...] -> [B, C/size, ...]."""
    return x.unflatten(1, (-1, size)).mean(2) if size > 1 else x


def add_repeated(h: Tensor, x: Tensor, repeats: int, stream: Stream) -> Tensor:
    """Add x [B, C, ...], each channel repeated, to h [B, C*repeats, ...] without storing the repeated x."""
    return stream.add(h.unflatten(1, (-1, repeats)), x.unsqueeze(2)).flatten(1, 2)


def _space_to_channels(x: Tensor, frames: int) -> Tensor:
    return rearrange(x, "b c (f t) (h p) (w q) -> b (t p q c) f h w", t=frames, p=2, q=2)


def _channels_to_space(x: Tensor, frames: int) -> Tensor:
    return rearrange(x, "b (t p q c) f h w -> b c (f t) (h p) (w q)", t=frames, p=2, q=2)
