"""Time and memory of converting and verifying a rank-32 LoRA of the whole model, 54 blocks x 14 layers.

    python bench/bench_lora_files.py [--dtype bfloat16] [--rank 32]

The file, of random numbers, lies in /dev/shm; each conversion is a process of its own, whose largest resident memory is
told. Expected: below 5 s and 1 GB beside what Python and torch take, for bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from hv15.lora.files import convert_file, save_lora
from hv15.lora.names import BLOCK_PARTS, kohya_name
from hv15.lora.programs.verify import verify
from hv15.lora.sizes import trainable_layers
from hv15.models.dit_config import DiTConfig


def write_lora(path: Path, rank: int, dtype: torch.dtype) -> None:
    """Write a LoRA of random numbers on all layers that hv15 trains."""
    layers = trainable_layers(DiTConfig())
    assert len(layers) == 54 * len(BLOCK_PARTS)
    tensors = {}
    for name, (rows, columns) in layers.items():
        tensors[f"{kohya_name(name)}.lora_down.weight"] = torch.randn(rank, columns).to(dtype)
        tensors[f"{kohya_name(name)}.lora_up.weight"] = torch.randn(rows, rank).to(dtype)
        tensors[f"{kohya_name(name)}.alpha"] = torch.tensor(rank / 2)
    save_lora(path, tensors, {})


def run_one(source: Path, target: Path, to: str) -> None:
    """Convert in this process, and print its seconds and megabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, used = time.perf_counter(), time.process_time()
    convert_file(source, target, to)  # type: ignore[arg-type]  # from the command line of this file
    seconds, cpu = time.perf_counter() - begin, time.process_time() - used
    if to in ("comfyui", "diffusers", "official"):
        assert verify(target, to).is_right  # type: ignore[arg-type]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "cpu": cpu, "before": before / 1024, "after": after / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--one", nargs=3, metavar=("SOURCE", "TARGET", "TO"))
    options = parser.parse_args()
    if options.one:
        run_one(Path(options.one[0]), Path(options.one[1]), options.one[2])
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder, "lora.safetensors")
        if os.fork() == 0:  # a child's largest memory begins with its parent's, which stays small so
            write_lora(source, options.rank, getattr(torch, options.dtype))
            os._exit(0)
        os.wait()
        print(f"rank {options.rank}, {options.dtype}, {source.stat().st_size / 1e6:.0f} MB")
        for to in ("comfyui", "diffusers", "official", "kohya"):
            target = Path(folder, f"{to}.safetensors")
            words = [sys.executable, __file__, "--one", source, target, to]
            found = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
            size = target.stat().st_size / 1e6
            print(
                f"to {to:<10} {found['seconds']:5.2f} s ({found['cpu']:.2f} s of CPU), {found['after']:5.0f} MiB "
                f"({found['after'] - found['before']:.0f} above the {found['before']:.0f} of Python and torch), "
                f"{size:.0f} MB written"
            )
            target.unlink()
        begin = time.perf_counter()
        verify(source, "musubi")
        print(f"verify     {time.perf_counter() - begin:5.2f} s")


if __name__ == "__main__":
    main()
