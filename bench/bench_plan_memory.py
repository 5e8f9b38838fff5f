"""What each memory option saves, as planned at full size or measured on the CPU: ratios to the plain step.

python bench/bench_plan_memory.py              # planned: 720p x 121 frames, the real model
python bench/bench_plan_memory.py --measure    # done on the CPU: width 512, 12 blocks, float32; peak and time
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch

from hv15.config import Settings
from hv15.models import DiTConfig
from hv15.plan.metered_steps import PassSize, run_training
from hv15.plan.transformer import training

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no checkpointing": {"gradient_checkpointing": False},
    "activation offload": {"gradient_checkpointing_cpu_offload": True},
    "swap 10": {"blocks_to_swap": 10},
    "fp8": {"quantize": "fp8"},
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4"},
    "split_attn": {"split_attn": True},
}
FULL = PassSize(samples=1, latent=(31, 45, 80), text_tokens=300, i2v=False)
MIDDLE = replace(FULL, latent=(5, 16, 16), text_tokens=64)
SIZES = DiTConfig(hidden_size=512, num_heads=8, num_blocks=12, rope_dims=(8, 28, 28), text_dim=256)


def settings(options: dict[str, Any]) -> Settings:
    content = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    return Settings.model_validate({**content, "train": {"optimizer_type": "AdamW", **options}})


def measured(options: dict[str, Any]) -> tuple[int, float]:
    """Bytes of the device at the planned peak, and seconds of the step on the CPU."""
    run_training(settings(options), SIZES, torch.float32, replace(MIDDLE, latent=(1, 4, 4)), device="cpu")
    start = time.process_time()
    run_training(settings(options), SIZES, torch.float32, MIDDLE, device="cpu")
    seconds = time.process_time() - start
    return run_training(settings(options), SIZES, torch.float32, MIDDLE).peak, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="on the CPU, with the time")
    measure = parser.parse_args().measure
    plain: tuple[int, float] | None = None
    print(f"{'option':20} {'peak GiB':>9} {'ratio':>6} {'seconds':>8} {'ratio':>6}")
    for name, options in OPTIONS.items():
        if measure:
            peak, seconds = measured(options)
        else:
            start = time.process_time()
            peak = training(settings(options), DiTConfig(), torch.bfloat16, FULL).peak
            seconds = time.process_time() - start  # of the planning
        plain = plain or (peak, seconds)
        print(
            f"{name:20} {peak / 2**30:9.2f} {peak / plain[0]:6.2f} {seconds:8.2f} {seconds / plain[1]:6.2f}", flush=True
        )


if __name__ == "__main__":
    main()
