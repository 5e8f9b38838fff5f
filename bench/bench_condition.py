"""What it saves to compute the condition's own layers once for a sample instead of in each step.

    OMP_NUM_THREADS=1 python bench/bench_condition.py [--blocks 2] [--grid 1 16 16] [--text-tokens 128] [--rounds 9]

Guided steps (two passes) at the real width, fp32, first with conditions that were prepared before, then with
conditions as they are; in turns, medians of the processor's time, and the ratio. Few blocks are run: the second table
counts the operations and kernels of the whole model without data (`hv15.plan.meter`), so that it shows the share that
is saved there, at usual sizes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from time import process_time

import torch
from torch import Tensor

from hv15.models import Condition, DiT, DiTConfig
from hv15.plan.meter import Meter

VISION_TOKENS = 729
SIZES = {  # latent frames, rows, columns
    "480x848, 1 frame": (1, 30, 53),
    "480x848, 25 frames": (7, 30, 53),
    "480x848, 121 frames": (31, 30, 53),
}


def condition(config: DiTConfig, text_tokens: int, *, i2v: bool) -> Condition:
    vision = torch.randn(1, VISION_TOKENS, config.vision_dim) if i2v else None
    return Condition(
        torch.randn(1, text_tokens, config.text_dim),
        [text_tokens],
        torch.zeros(1, 0, config.glyph_dim),
        [0],
        vision,
    )


@torch.no_grad()
def timed(config: DiTConfig, grid: list[int], text_tokens: int, rounds: int, *, i2v: bool) -> tuple[float, float]:
    """Return the median seconds of a guided step with prepared conditions, and with conditions as they are."""
    torch.manual_seed(0)
    dit = DiT(config).requires_grad_(False).eval()
    x, time = torch.randn(1, config.in_channels, *grid), torch.full((1,), 500.0)
    conditions = [condition(config, count, i2v=i2v) for count in (text_tokens, 8)]
    prepared = [dit.prepare(each) for each in conditions]
    steps: list[Callable[[], list[Tensor]]] = [
        lambda: [dit(x, time, each) for each in prepared],
        lambda: [dit(x, time, each) for each in conditions],
    ]
    assert all(torch.equal(one, other) for one, other in zip(steps[0](), steps[1](), strict=True))
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for step, seconds in zip(steps, times, strict=True):
            begun = process_time()
            step()
            seconds.append(process_time() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


@torch.no_grad()
def counted(grid: tuple[int, int, int], text_tokens: int, *, i2v: bool) -> tuple[int, float, float]:
    """Return the operations of a pass of the whole model, and which part of them, and of the kernels, is prepared."""
    with torch.device("meta"):
        dit = DiT(DiTConfig()).to(torch.bfloat16).requires_grad_(False)
        x, time = torch.empty(1, dit.config.in_channels, *grid, dtype=torch.bfloat16), torch.empty(1)
        cond = condition(dit.config, text_tokens, i2v=i2v).to("meta", torch.bfloat16)
    with Meter("meta") as meter:
        prepared = dit.prepare(cond)
        once, kernels = meter.flops, meter.launches
        dit(x, time, prepared)
    return meter.flops, once / meter.flops, kernels / meter.launches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--grid", type=int, nargs=3, default=[1, 16, 16], metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--text-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9, help="0: only count")
    given = parser.parse_args()
    if given.rounds:
        print(f"{given.blocks} blocks, latent {given.grid}, {given.text_tokens} text tokens, fp32, processor's time")
    for name, i2v in (("t2v", False), ("i2v", True)) if given.rounds else ():
        config = replace(DiTConfig(), num_blocks=given.blocks)
        prepared, anew = timed(config, given.grid, given.text_tokens, given.rounds, i2v=i2v)
        row = f"{name:6} prepared {prepared:7.3f} s   in each step {anew:7.3f} s"
        print(f"{row}   ratio {prepared / anew:.3f}", flush=True)
    print("the whole model, operations of a pass")
    for size, grid in SIZES.items():
        for name, i2v in (("t2v", False), ("i2v", True)):
            whole, once, kernels = counted(grid, given.text_tokens, i2v=i2v)
            print(
                f"{size:22}{name:6}{whole / 1e12:8.1f} TFLOP; once: {once:6.3%} of them, {kernels:5.1%} of the kernels"
            )


if __name__ == "__main__":
    main()
