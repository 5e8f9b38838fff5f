"""Time of VAE encode and decode against diffusers' on equal weights, interleaved; the ratio of medians counts.

Usage: OMP_NUM_THREADS=2 python bench/bench_vae.py [--rounds 5] [--frames 17] [--size 128]
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLHunyuanVideo15

from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_layouts import name_in

WIDTHS = (32, 64, 128, 256, 256)


def build() -> tuple[VAE, AutoencoderKLHunyuanVideo15]:
    """The same random network twice: ours and diffusers'."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    ours = VAE(VAEConfig(block_out_channels=WIDTHS)).requires_grad_(False).eval()
    theirs = AutoencoderKLHunyuanVideo15(block_out_channels=WIDTHS, latent_channels=32)
    theirs.load_state_dict({name_in("diffusers", key): value for key, value in ours.state_dict().items()})
    return ours, theirs.requires_grad_(False).eval()


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of one call; with OMP_NUM_THREADS=1 the latter is fair on a busy machine too."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Medians in seconds and their ratios (below 1: ours is faster) over interleaved rounds, after one warm-up."""
    ours(), theirs()
    rows = [(*seconds(ours), *seconds(theirs)) for _ in range(rounds)]
    wall, processor, their_wall, their_processor = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "ours_s": round(wall, 3),
        "diffusers_s": round(their_wall, 3),
        "ratio": round(wall / their_wall, 3),
        "processor_ratio": round(processor / their_processor, 3),
    }


@torch.no_grad()
def main() -> None:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    ours, theirs = build()
    for frames in (options.frames, 1):
        pixels = torch.rand(1, 3, frames, options.size, options.size) * 2 - 1
        latents = ours.encode(pixels)
        expected = theirs.encode(pixels).latent_dist.mode()
        difference = float((latents - expected).abs().max())
        result = compare(lambda p=pixels: ours.encode(p), lambda p=pixels: theirs.encode(p), options.rounds)
        print(json.dumps({"case": "encode", "frames": frames} | result | {"max_difference": difference}), flush=True)
        difference = float((ours.decode(latents) - theirs.decode(latents).sample).abs().max())
        result = compare(lambda z=latents: ours.decode(z), lambda z=latents: theirs.decode(z), options.rounds)
        print(json.dumps({"case": "decode", "frames": frames} | result | {"max_difference": difference}), flush=True)


if __name__ == "__main__":
    main()
