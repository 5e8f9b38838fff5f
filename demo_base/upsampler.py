"""Makes the latent upsampler of the demo's super resolution: it corrects latents that were enlarged by interpolation.

The network is that of the published one for 720p, in a small size. Its weights are found in closed form, convolution by
convolution; later they are trained along with the transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from demo_base.closed_form import LeastSquares, parts, put, taps, through
from demo_base.pairs import Pairs
from hv15.models.upsamplers import ConvBlock, Upsampler720, Upsampler720Config
from hv15.models.vae_blocks import CausalConv3d, Stream
from hv15.sample.super_resolution import resized
from hv15.train.random import generator

SIZES = Upsampler720Config(channels=32, hidden=32, blocks=2)
CLIPS = 1024
"""Number of pairs that its weights are fitted to."""


def new_upsampler(pairs: Pairs, seed: int) -> Upsampler720:
    """Return an upsampler whose weights are fitted to the pairs by least squares, one convolution after the other."""
    upsampler = Upsampler720(SIZES)
    draws = generator(seed, "upsampler", 0)
    wanted = pairs.large
    with torch.no_grad():
        x = resized(pairs.small, *wanted.shape[3:])
        x = _fitted(upsampler.in_conv, x, wanted)
        for block in upsampler.blocks:
            assert isinstance(block, ConvBlock)
            x = _fitted_block(block, x, wanted, draws)
        _fitted(upsampler.out_conv, x, wanted)
    return upsampler


def _fitted(conv: CausalConv3d, x: Tensor, wanted: Tensor) -> Tensor:
    """Fit a convolution of x to `wanted`, both [B, C, F, H, W]; return its output."""
    squares = LeastSquares(x.shape[1], wanted.shape[1])
    for part, target in parts(x, wanted):
        squares.add(taps(part), target.movedim(1, -1))
    put(conv, squares.solve())
    return through(conv, x)


def _fitted_block(block: ConvBlock, x: Tensor, wanted: Tensor, draws: torch.Generator) -> Tensor:
    """Fit the last convolution of a block behind two random ones; return the block's output."""
    first, second, last = (block.block[number] for number in ("0", "2", "4"))
    for conv in (first, second):
        assert isinstance(conv, CausalConv3d)
        assert conv.conv.bias is not None
        weight = conv.conv.weight
        weight.data = torch.randn(weight.shape, generator=draws) / weight[0].numel() ** 0.5
        conv.conv.bias.data = 0.5 * torch.randn(len(weight), generator=draws)

    def features(part: Tensor, stream: Stream) -> Tensor:
        return nn.functional.silu(second(nn.functional.silu(first(part, stream)), stream))

    assert isinstance(last, CausalConv3d)
    _fitted(last, through(features, x), wanted - x)
    return through(block, x)
