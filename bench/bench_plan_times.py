"""What a training step asks of a GPU as counted, and how long it takes as planned, beside public measurements.

python bench/bench_plan_times.py                          # the shape of the public measurements
python bench/bench_plan_times.py --latent 31 45 80 --samples 1
"""

from __future__ import annotations

import argparse

import torch

from hv15.config import Settings
from hv15.models import DiTConfig
from hv15.plan.devices import DEVICES
from hv15.plan.metered_steps import PassSize
from hv15.plan.times import Load, unit_seconds
from hv15.plan.transformer import training

PUBLIC = {"H100": 7.68, "L40S": 22.8}
"""Seconds a step of SimpleTuner: 480 x 480 pixels, 49 frames, batch 2, rank 16, bfloat16, each block checkpointed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, nargs=3, default=[13, 30, 30], metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--text-tokens", type=int, default=120, help="1985: as diffusers' pipeline pads")
    given = parser.parse_args()
    frames, rows, columns = given.latent
    content = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    settings = Settings.model_validate(
        {**content, "train": {"network_dim": 16, "network_alpha": 16, "optimizer_type": "AdamW"}}
    )
    size = PassSize(given.samples, (frames, rows, columns), given.text_tokens, i2v=False)
    cost = training(settings, DiTConfig(), torch.bfloat16, size)

    print(f"{'work':14} {'kernels':>8} {'GB moved':>9} {'TFLOP':>8}")
    for kind, work in cost.work.items():
        print(f"{kind:14} {work.launches:8} {work.moved / 1e9:9.0f} {work.flops / 1e12:8.1f}")
    print(f"\n{'GPU':18} {'least':>7} {'most':>7} {'typical':>8} {'share of peak':>14}  public, same default shape")
    for device in DEVICES:
        found = unit_seconds(Load(cost.work, cost.copied), device, "train", "bfloat16")
        if found is None or device.tflops is None or not device.bfloat16:
            continue
        share = cost.flops / found.typical / (device.tflops * 1e12)
        public = PUBLIC.get(device.name, "")
        print(f"{device.name:18} {found.least:7.1f} {found.most:7.1f} {found.typical:8.1f} {share:14.0%}  {public}")


if __name__ == "__main__":
    main()
