"""Makes the latent upsampler of the demo's super resolution: it corrects latents that were enlarged by interpolation.

Its weights are found in closed form, convolution by convolution, and then trained for a while. The network is that of
the published one for 720p, in a small size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_base.closed_form import LeastSquares, parts, put, taps, through
from demo_base.loop import Course, StepResult, train
from demo_base.pairs import Pairs
from hv15.atomic import atomic_path
from hv15.models.upsamplers import ConvBlock, Upsampler720, Upsampler720Config
from hv15.models.vae_blocks import CausalConv3d, Stream
from hv15.records.metrics import MetricsRecord
from hv15.sample.super_resolution import resized
from hv15.train.random import generator
from hv15.train.state import locked

SIZES = Upsampler720Config(channels=32, hidden=32, blocks=1)


@dataclass(frozen=True)
class UpsamplerStage:
    """How the upsampler is trained."""

    name: str = "upsampler"
    seed: int = 0
    """Seed of all random draws."""
    steps: int = 200
    batch: int = 32
    rate: float = 1e-3
    warmup: int = 20
    state_every: int = 100
    clips: int = 1024
    """Number of pairs; the closed form uses them, too."""


STAGE = UpsamplerStage()


@dataclass(frozen=True, kw_only=True)
class UpsamplerStep(MetricsRecord):
    """A step in the metrics.jsonl of the upsampler."""

    kind = "upsampler_step"
    loss: float
    """Mean squared error of the latents, in the transformer's scale."""
    grad_norm: float
    lr: float


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


def train_upsampler(stage: UpsamplerStage, pairs: Pairs, folder: Path, *, settings: str) -> Path:
    """Make the upsampler, or resume making it; return its weights, `<folder>/<stage>.safetensors`, fp32.

    Args:
        settings: digest of what the pairs depend on.

    Raises:
        UserError: a file cannot be written, or another process runs the same stage.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target, work = folder / f"{stage.name}.safetensors", folder / stage.name
    with locked(work):
        start = work / "start.safetensors"
        if start.exists():
            upsampler = Upsampler720(SIZES)
            upsampler.load_state_dict(load_file(start))
        else:
            upsampler = new_upsampler(pairs, stage.seed)
            with atomic_path(start) as temporary:
                save_file(upsampler.state_dict(), temporary)
        inputs = resized(pairs.small, *pairs.large.shape[3:])

        def losses(step: int) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(pairs), (stage.batch,), generator=generator(stage.seed, "upsampler clips", step))
            error = (upsampler(inputs[chosen]) - pairs.large[chosen]).square().mean()
            return error, error.detach()

        train(
            upsampler,
            [{"params": list(upsampler.parameters()), "peak": stage.rate}],
            Course(stage.name, stage.steps, stage.rate, stage.warmup, stage.state_every),
            losses,
            work,
            spec=f"{stage} {SIZES} {settings}",
            record=_record,
            note=lambda result: f"error {result.error:.3f}",
        )
        with atomic_path(target) as temporary:
            save_file(upsampler.state_dict(), temporary)
    return target


def _record(step: int, result: StepResult) -> UpsamplerStep:
    return UpsamplerStep(step=step, loss=result.loss, grad_norm=result.grad_norm, lr=result.lr)
