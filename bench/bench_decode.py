"""Memory and time of decoding a video into an mp4: at once, as a stream of whole frames, and in tiles.

Usage: OMP_NUM_THREADS=2 python bench/bench_decode.py [--frames 17 65] [--size 352 640] [--width 8] [--rounds 1]
    [--discard] [--ways "whole frames"]

A VAE of the published depth with random weights and a 16th of its widths (--width: channels of its widest picture; 128
in the published one). Each decoding is a process of its own, and its largest resident size counts, above that after one
decoded frame. `--discard` throws the frames away instead of encoding them, which shows the decoder alone; beside it
stands what `hv15 plan` counts for it, without the weights, but in the larger chunks of a GPU.
Seconds are those of the processor. On the CPU, in float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hv15.models.vae import VAEConfig
    from hv15.models.vae_decoding import Tiling

WAYS = ("at once", "whole frames", "tiles of 256", "seamless tiles of 256")


def decode(way: str, frames: int, height: int, width: int, channels: int, *, discard: bool) -> dict[str, float]:
    """Decode in this process; return seconds, and MiB above those before."""
    import torch

    from hv15.data.encode import write_video
    from hv15.models.vae import VAE
    from hv15.models.vae_decoding import Tiling
    from hv15.sample.decode import decoded_frames, to_frames

    torch.manual_seed(0)
    vae = VAE(sizes(channels)).requires_grad_(False)
    latents = torch.randn(1, channels, (frames - 1) // 4 + 1, height // 16, width // 16)

    def use(name: str, pixels: Iterable[Any]) -> None:
        if discard:
            deque(pixels, maxlen=0)
        else:
            write_video(folder / name, pixels)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        use("one.mp4", decoded_frames(vae, latents[:, :, :1], Tiling(), folder))
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        if way == "at once":
            with torch.no_grad():
                use("video.mp4", to_frames(vae.decode(latents)))
        else:
            use("video.mp4", decoded_frames(vae, latents, tiling(way), folder))
        seconds = time.process_time() - begun
        return {"seconds": seconds, "MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def sizes(channels: int) -> VAEConfig:
    """Return the published depth at another width."""
    from hv15.models.vae import VAEConfig

    widths = (channels, 2 * channels, 4 * channels, 8 * channels, 8 * channels)
    return VAEConfig(block_out_channels=widths, latent_channels=channels)


def tiling(way: str) -> Tiling:
    from hv15.models.vae_decoding import Tiling

    return {"tiles of 256": Tiling(256, 0.25), "seamless tiles of 256": Tiling(256, seamless=True)}.get(way, Tiling())


def planned(way: str, frames: int, height: int, width: int, channels: int) -> str:
    """Return the MiB that `hv15 plan` counts beside the weights; nothing for what is not done in hv15."""
    import torch

    from hv15.memory import WEIGHTS
    from hv15.plan.decoding import decoding
    from hv15.plan.encoders import make_vae

    if way == "at once":
        return ""
    vae = make_vae(sizes(channels), torch.float32, patch_conv=False)
    cost = decoding(vae, ((frames - 1) // 4 + 1, height // 16, width // 16), tiling(way))
    return f"{(cost.peak - cost.parts[WEIGHTS]) / 2**20:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[17, 65])
    parser.add_argument("--size", type=int, nargs=2, default=[352, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument("--discard", action="store_true")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process; prints JSON")
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(decode(options.way, options.frames[0], *options.size, options.width, discard=options.discard)))
        return
    print(f"{'':24} {'frames':>6} {'seconds':>8} {'MiB':>7} {'planned':>8}")
    for way in options.ways:
        for frames in options.frames:
            words = ["--way", way, "--frames", str(frames), "--size", *map(str, options.size)]
            command = [sys.executable, __file__, *words, "--width", str(options.width)]
            command += ["--discard"] if options.discard else []
            runs = [json.loads(subprocess.check_output(command)) for _ in range(options.rounds)]
            seconds, mebibytes = (statistics.median(run[name] for run in runs) for name in ("seconds", "MiB"))
            counted = planned(way, frames, *options.size, options.width)
            print(f"{way:24} {frames:6} {seconds:8.1f} {mebibytes:7.0f} {counted:>8}", flush=True)


if __name__ == "__main__":
    main()
