"""Initial weights for the VAE without gradients: each convolution is fitted by least squares, level by level.

Gradient descent from random weights would spend hours on finding which numbers each level has to pass on, but these are
known: the levels' targets are principal components of ever smaller patches. Residual blocks get random first
convolutions, and second convolutions that correct the remaining error. In addition to the signal, each level carries
constant channels: norms keep only the direction of their input, and relative to a constant, a direction shows a size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hv15.models.vae_blocks import CausalConv3d, Downsample, ResBlock, Stream, Upsample, group_mean
from hv15.models.vae_coders import Decoder, Encoder, Level

CONSTANT = 3.0
LAST_CONSTANT = 20.0
"""The constant at the encoder's narrow end, where the whole signal passes through norms."""
RIDGE = 1e-4
"""Regularisation, which keeps unneeded weights small, as a fraction of the mean squared input."""
FIRST_WEIGHT = 2.0
"""Weight of first frames, which are few, relative to later ones that share their weights."""
_CLIPS_AT_ONCE = 4


class LeastSquares:
    """Finds the weights of a causal convolution from its inputs and wanted outputs.

    With `centred`, the inputs' means are subtracted, so that small differences are more accurate and less regularised.
    """

    def __init__(self, inputs: int, outputs: int, *, centred: bool = False, ridge: float = RIDGE) -> None:
        size = 27 * inputs + 1
        self.ridge = ridge
        self.gram = torch.zeros(size, size)
        self.right = torch.zeros(size, outputs)
        self.shift = None if centred else torch.zeros(size)

    def add(self, rows: Tensor, wanted: Tensor, weight: float = 1.0) -> None:
        """Add rows of `taps` [..., 27 * C + 1] and their wanted outputs [..., outputs]."""
        a, y = rows.reshape(-1, rows.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        if self.shift is None:
            self.shift = a.mean(0)
            self.shift[-1] = 0
        a = a - self.shift
        self.gram.addmm_(a.T, a, alpha=weight)
        self.right.addmm_(a.T, y, alpha=weight)

    def solve(self) -> Tensor:
        """Return weights and bias [outputs, 27 * C + 1]."""
        assert self.shift is not None
        gram = self.gram.double()
        gram = gram + self.ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        solution = torch.linalg.solve(gram, self.right.double()).T
        solution[:, -1] -= solution @ self.shift.double()
        return solution.float()


def taps(x: Tensor) -> Tensor:
    """Return the inputs of each output of a causal convolution on x [B, C, F, H, W], and 1: [B, F, H, W, 27C + 1]."""
    padded = F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate")
    seen = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    rows = rearrange(seen, "b c f h w i j k -> b f h w (c i j k)")
    return torch.cat([rows, torch.ones(*rows.shape[:-1], 1)], -1)


def put(conv: CausalConv3d, solution: Tensor, rows: slice | None = None) -> None:
    """Write a solution [outputs, 27 * C + 1] into a convolution, or into some of its output channels."""
    where = rows or slice(None)
    assert conv.conv.bias is not None
    conv.conv.weight.data[where] = solution[:, :-1].reshape(-1, *conv.conv.weight.shape[1:])
    conv.conv.bias.data[where] = solution[:, -1]


def through(module: nn.Module | Callable[[Tensor, Stream], Tensor], x: Tensor) -> Tensor:
    """Run clips [B, C, F, H, W] through a module, a few at a time, each first frame before the others."""
    results = []
    for part in x.split(_CLIPS_AT_ONCE):
        stream = Stream(tracked=True, first=True, last=part.shape[2] == 1)
        frames = [module(part[:, :, :1], stream)]
        if part.shape[2] > 1:
            stream.first, stream.last = False, True
            frames.append(module(part[:, :, 1:], stream))
        results.append(torch.cat(frames, 2))
    return torch.cat(results)


def parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over several tensors [B, ...] at once, a few clips at a time."""
    yield from zip(*(tensor.split(_CLIPS_AT_ONCE) for tensor in tensors), strict=True)


def fit_block(
    block: ResBlock,
    x: Tensor,
    wanted: Tensor,
    generator: torch.Generator,
    *,
    straight: bool = False,
    centred: bool = False,
) -> Tensor:
    """Fit a block so that it brings x's first channels close to `wanted`; return the block's output.

    Args:
        x, wanted: [B, C, F, H, W].
        straight: the block's first convolution is the identity; otherwise it is random.
        centred: see `LeastSquares`.
    """
    weight, bias = block.conv1.conv.weight, block.conv1.conv.bias
    assert bias is not None
    weight.data = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
    bias.data = 0.5 * torch.randn(bias.shape, generator=generator)
    if straight:
        nn.init.zeros_(bias)
        nn.init.zeros_(weight)
        weight.data[:, :, 2, 1, 1] = torch.eye(len(weight))
    channels = wanted.shape[1]

    def features(part: Tensor, stream: Stream) -> Tensor:
        return block.norm2(block.conv1(block.norm1(part, silu=True), stream), silu=True)

    squares = LeastSquares(x.shape[1], channels, centred=centred)
    for part, target in parts(x, wanted):
        rows = taps(through(features, part))
        squares.add(rows, (target - part[:, :channels]).movedim(1, -1))
    put(block.conv2, squares.solve(), slice(0, channels))
    return through(block, x)


def fit_upsample(up: Upsample, x: Tensor, wanted: Tensor) -> Tensor:
    """Fit an upsampling of x to `wanted`, both [B, C, F, H, W]; return its output."""
    channels = wanted.shape[1]
    if not up.temporal:
        squares = LeastSquares(x.shape[1], 4 * channels)
        for part, target in parts(x, wanted):
            short = part.repeat_interleave(up.repeats, 1).movedim(1, -1)
            squares.add(taps(part), rearrange(target, "b c f (h p) (w q) -> b f h w (p q c)", p=2, q=2) - short)
        put(up.conv, squares.solve())
        return through(up, x)
    # The rows for a first frame's four pixels are the ones that later frames use for their left pixels.
    left, right = LeastSquares(x.shape[1], 4 * channels), LeastSquares(x.shape[1], 4 * channels)
    for part, target in parts(x, wanted):
        rows = taps(part)
        later = rearrange(target[:, :, 1:], "b c (f t) (h p) (w q) -> b f h w (t p q c)", t=2, p=2, q=2)
        later = later - part[:, :, 1:].repeat_interleave(up.repeats, 1).movedim(1, -1)
        sides = rearrange(later, "b f h w (g q c) -> q b f h w (g c)", q=2, c=channels)
        left.add(rows[:, 1:], sides[0])
        right.add(rows[:, 1:], sides[1])
        start = rearrange(target[:, :, :1], "b c f (h p) (w q) -> b f h w (p q c)", p=2, q=2)
        start = start - part[:, :, :1].repeat_interleave(up.repeats // 2, 1).movedim(1, -1)
        left.add(rows[:, :1], start, FIRST_WEIGHT)
    solution = torch.stack([left.solve(), right.solve()]).unflatten(1, (4, channels))  # (q, g, c, D)
    put(up.conv, rearrange(solution, "q g c d -> (g q c) d"))
    return through(up, x)


@torch.no_grad()
def fit_decoder(decoder: Decoder, latents: Tensor, pixels: Tensor, generator: torch.Generator) -> None:
    """Fit the whole decoder to latents [B, 32, F', h, w] and pixels [B, 3, F, H, W]."""
    _zero_ends(decoder)
    assert decoder.conv_in.conv.bias is not None
    decoder.conv_in.conv.bias.data[1::2] = CONSTANT  # each latent has two channels, the second with the constant
    x = through(lambda part, stream: decoder.conv_in(part, stream) + part.repeat_interleave(2, 1), latents)
    targets = [
        with_constant(patch_codes(pixels, 8, 60), 64),
        with_constant(patch_codes(pixels, 4, 30), 32),
        with_constant(patch_codes(pixels, 2, 12), 16),
        torch.cat([pixels, -pixels, torch.full_like(pixels[:, :2], CONSTANT)], 1),
    ]
    for number, target in enumerate(targets):
        kept = len(latents) >> number  # fewer clips at finer levels, where a clip has more patches
        x, wanted = x[:kept], target[:kept]
        x = fit_upsample(cast(Upsample, decoder.up[number].upsample), x, wanted)
        for block in cast(Level, decoder.up[number + 1]).block:
            x = fit_block(cast(ResBlock, block), x, wanted, generator)
    squares = LeastSquares(x.shape[1], 3)
    for part, target in parts(x, pixels[: len(x)]):
        squares.add(taps(decoder.norm_out(part, silu=True)), target.movedim(1, -1))
    put(decoder.conv_out, squares.solve())


def _zero_ends(network: nn.Module) -> None:
    """Set the first and the last convolution to 0."""
    for name, parameter in network.named_parameters():
        if name.endswith(("conv_in.conv.weight", "conv_in.conv.bias", "conv_out.conv.weight", "conv_out.conv.bias")):
            nn.init.zeros_(parameter)


def with_constant(codes: Tensor, channels: int) -> Tensor:
    """Pad codes [B, C, F, H, W] to this number of channels with the constant."""
    batch, _, *rest = codes.shape
    return torch.cat([codes, torch.full((batch, channels - codes.shape[1], *rest), CONSTANT)], 1)


def patch_codes(pixels: Tensor, size: int, count: int) -> Tensor:
    """Return the principal components of patches of `size` pixels: [B, count, F, H/size, W/size].

    Their standard deviations are about 1.

    Patches of 8 pixels span two frames, except in the first frame; smaller patches span one.
    """
    pattern = "b c (f t) (h p) (w q) -> b f h w (t p q c)"
    if size < 8:
        cells = rearrange(pixels, pattern, t=1, p=size, q=size)
        return (cells @ _map(cells, count)).movedim(-1, 1)
    first = rearrange(pixels[:, :, :1], pattern, t=1, p=size, q=size)
    later = rearrange(pixels[:, :, 1:], pattern, t=2, p=size, q=size)
    # later patches have components of their mean over time, then of the change, so things at rest keep their numbers
    still = later.unflatten(-1, (2, -1)).mean(-2)
    map_still = _map(torch.cat([first, still], 1), count // 2)
    moving = later.unflatten(-1, (2, -1))
    moving = moving[..., 1, :] - moving[..., 0, :]
    map_moving = _map(moving, count - count // 2)
    zero = torch.zeros(*first.shape[:-1], count - count // 2)
    codes_first = torch.cat([first @ map_still, zero], -1)
    codes_later = torch.cat([still @ map_still, moving @ map_moving], -1)
    return torch.cat([codes_first, codes_later], 1).movedim(-1, 1)


def _map(cells: Tensor, count: int) -> Tensor:
    flat = cells.reshape(-1, cells.shape[-1]).double()
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    vectors = vectors.flip(1)[:, :count]
    vectors = vectors * vectors.sum(0).sign()
    return (vectors / values.flip(0)[:count].clamp_min(1e-8) ** 0.35).float()


@torch.no_grad()
def fit_encoder(encoder: Encoder, pixels: Tensor, latents: Tensor, generator: torch.Generator) -> None:
    """Fit the whole encoder to pixels [B, 3, F, H, W] and latents [B, 32, F', h, w]."""
    _zero_ends(encoder)
    assert encoder.conv_in.conv.bias is not None
    for channel in range(6):  # red, red, green, green, blue, blue, and two constants
        encoder.conv_in.conv.weight.data[channel, channel // 2, 2, 1, 1] = 1
    encoder.conv_in.conv.bias.data[6:] = CONSTANT
    x = through(encoder.conv_in, pixels)
    downs = [cast(Downsample, level.downsample) for level in encoder.down if level.downsample is not None]
    for down in downs:
        x = _fit_downsample(down, x)
    bias = downs[-1].conv.conv.bias
    assert bias is not None
    bias.data[-1] += LAST_CONSTANT - CONSTANT
    x[:, len(bias) - 1 :: len(bias)] += LAST_CONSTANT - CONSTANT
    straight = cast(ResBlock, cast(Level, encoder.down[-1]).block[0])
    for block in (straight, encoder.mid.block_1, encoder.mid.block_2):
        x = fit_block(block, x, latents, generator, straight=block is straight, centred=True)
    squares = LeastSquares(x.shape[1], latents.shape[1], centred=True)
    for part, target in parts(x, latents):
        squares.add(taps(encoder.norm_out(part, silu=True)), (target - part[:, : target.shape[1]]).movedim(1, -1))
    put(encoder.conv_out, squares.solve(), slice(0, latents.shape[1]))


def _fit_downsample(down: Downsample, x: Tensor) -> Tensor:
    """Fit a downsampling that passes on each pixel's first principal components and a constant."""
    count = down.conv.conv.weight.shape[0]
    nn.init.zeros_(down.conv.conv.weight)
    assert down.conv.conv.bias is not None
    nn.init.zeros_(down.conv.conv.bias)
    cells = x.movedim(1, -1).reshape(-1, x.shape[1])
    shortcut = group_mean(torch.eye(x.shape[1])[None].movedim(1, 2).movedim(2, 1), down.group)[0]  # (count, C)
    if count > 4:
        mean = cells.mean(0)
        vectors = _map(cells - mean, count - 1).T  # (count - 1, C)
        down.conv.conv.weight.data[:-1, :, 2, 1, 1] = vectors
        down.conv.conv.bias.data[:-1] = -vectors @ mean
        down.conv.conv.bias.data[-1] = CONSTANT
        down.conv.conv.weight.data[:, :, 2, 1, 1] -= shortcut
    return through(down, x)
