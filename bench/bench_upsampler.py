"""The latent upsamplers in chunks of frames against a plain implementation over whole clips: memory and time.

Memory is that of the published sizes at the largest official size, 1904x1072 pixels and 121 frames (720p: 1280x720),
found on the meta device: weights, and the peak of all else. Time is that of small networks on this machine's CPU.

Usage: OMP_NUM_THREADS=2 python bench/bench_upsampler.py [--rounds 3] [--memory-only]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.memory import WEIGHTS, PeakMemory
from hv15.models.upsamplers import (
    LatentUpsampler,
    Upsampler720,
    Upsampler720Config,
    Upsampler1080,
    Upsampler1080Config,
)

GIB = 2**30
PUBLISHED = {"720p": (Upsampler720, (31, 45, 80)), "1080p": (Upsampler1080, (31, 67, 119))}
"""Network, and latent frames, rows and columns."""


def causal(conv: nn.Module, x: Tensor) -> Tensor:
    """The convolution of a whole clip [B, C, F, H, W] with its replicated border."""
    return conv.conv(F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate"))  # type: ignore[operator]


def plain(network: LatentUpsampler, x: Tensor) -> Tensor:
    """The same network over a whole clip [B, C, F, H, W]: no chunks, and no buffer is written again."""
    if isinstance(network, Upsampler720):
        y = causal(network.in_conv, x)
        for block in network.blocks:
            first, second, third = block.block.values()
            y = y + causal(third, F.silu(causal(second, F.silu(causal(first, y)))))
        return causal(network.out_conv, y)
    assert isinstance(network, Upsampler1080)
    y = causal(network.conv_in, x) + x.repeat_interleave(network.config.widths[0] // network.channels, dim=1)
    for level in network.up:
        for block in level.block:
            h = causal(block.conv1, F.silu(_normed(block.norm1, y)))
            h = causal(block.conv2, F.silu(_normed(block.norm2, h)))
            y = (y if block.nin_shortcut is None else block.nin_shortcut(y)) + h
    return causal(network.conv_out, F.silu(_normed(network.norm_out, y)))


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    return F.normalize(x, dim=1, eps=1e-12) * x.shape[1] ** 0.5 * norm.gamma


def peak(network: LatentUpsampler, run: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> dict[str, float]:
    """GiB of the weights, and the peak of all else, for latents of this size."""
    with torch.device("meta"), PeakMemory("meta") as memory:
        memory.assign(WEIGHTS, network)
        run(torch.empty(1, network.channels, *size))
    weights = memory.parts[WEIGHTS]
    return {"weights_gib": round(weights / GIB, 2), "rest_gib": round((memory.peak - weights) / GIB, 2)}


def seconds(run: Callable[[Tensor], Tensor], x: Tensor, rounds: int) -> float:
    run(x)
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run(x)
        times.append(time.process_time() - start)
    return round(statistics.median(times), 3)


@torch.no_grad()
def main() -> None:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-only", action="store_true")
    options = parser.parse_args()
    for name, (kind, size) in PUBLISHED.items():
        with torch.device("meta"):
            network = kind()
        for how, run in (("chunks", network), ("plain", lambda x, network=network: plain(network, x))):
            print(json.dumps({"network": name, "run": how, **peak(network, run, size)}), flush=True)
    if options.memory_only:
        return
    small = {
        "720p": Upsampler720(Upsampler720Config(32, 32, 4)),
        "1080p": Upsampler1080(Upsampler1080Config(32, (64, 96), 1)),
    }
    for name, network in small.items():
        x = torch.randn(1, 32, 16, 24, 32)
        ours, theirs = seconds(network, x, options.rounds), seconds(lambda x, n=network: plain(n, x), x, options.rounds)
        error = (network(x) - plain(network, x)).abs().max().item()
        print(
            json.dumps({"network": name, "chunks_s": ours, "plain_s": theirs, "largest_difference": error}), flush=True
        )


if __name__ == "__main__":
    main()
