"""What validations take of a training: a measured pass beside a training step, and the share at the defaults.

    OMP_NUM_THREADS=1 python bench/bench_validation.py [--steps 6] [--grid 5 16 24]

Width 512, 12 blocks, LoRA of rank 16, float32 on the CPU, with the trainer's own loop and validation. The goal is a
share below 1 % where `train.validation` says nothing of how often (hv15.config.training.validation). What it is at full
size, `hv15 plan` says, and tests/plan/test_validation.py checks for each preset.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from hv15.cache.batches import Stores, TrainingItem
from hv15.config import Settings
from hv15.models import DiT, DiTConfig
from hv15.records.json_values import parse_object
from hv15.train.run import train_dit

SIZES = DiTConfig(
    hidden_size=512, num_heads=8, num_blocks=12, rope_dims=(8, 28, 28), text_dim=512, glyph_dim=128, glyph_hidden=128
)
TEXT_TOKENS, CLIPS, HELD_OUT = 64, 6, 2


class MemoryStore(dict[str, dict[str, Tensor]]):
    """Items in memory, so that the disk is not measured."""

    def has(self, key: str) -> bool:
        return key in self

    def read(self, key: str) -> dict[str, Tensor]:
        return self[key]


def measured(folder: Path, options: dict[str, Any], grid: list[int], steps: int) -> tuple[float, float]:
    """Train, and validate after every second step; the median seconds of a step, and those of a pass."""
    train = {
        "max_train_steps": steps,
        "optimizer_type": "AdamW",
        "network_dim": 16,
        "network_alpha": 16,
        "validation": {"fraction": 0.1, "every_n_steps": 2},
        **options,
    }
    settings = Settings.model_validate(
        {
            "models": {"source": "demo"},
            "datasets": [{"video_directory": "clips"}],
            "runtime": {"device": "cpu"},
            "train": train,
        }
    )
    items = [TrainingItem(f"clip {i}", f"text {i}", (grid[0], grid[1], grid[2])) for i in range(CLIPS)]
    latents = {f"clip {i}": {"latents": torch.randn(SIZES.latent_channels, *grid)} for i in range(CLIPS)}
    texts = {
        f"text {i}": {"text": torch.randn(TEXT_TOKENS, SIZES.text_dim), "glyphs": torch.zeros(0, SIZES.glyph_dim)}
        for i in range(CLIPS)
    }
    dit = DiT(SIZES).requires_grad_(False).eval()
    train_dit(
        settings,
        {"train": settings.dump()["train"]},
        items[HELD_OUT:],
        Stores(MemoryStore(latents), MemoryStore(texts)),
        folder / "lora.safetensors",
        dit=dit,
        accelerator=Accelerator(cpu=True),
        held_out=items[:HELD_OUT],
    )
    records = [parse_object(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    took = {kind: [each for each in records if each["kind"] == kind] for kind in ("step", "validation")}
    passes = settings.train.validation.passes(both_tasks=False)
    step, once = (
        statistics.median(float(str(each[name])) for each in took[kind])
        for kind, name in (("step", "step_s"), ("validation", "seconds"))
    )
    return step, once / passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--grid", type=int, nargs=3, default=[5, 16, 24])
    options = parser.parse_args()
    torch.manual_seed(0)
    for name, checkpointing in (("gradient checkpointing", True), ("kept activations", False)):
        with tempfile.TemporaryDirectory() as folder:
            more = {"gradient_checkpointing": checkpointing}
            step, once = measured(Path(folder), more, options.grid, options.steps)
        validation = Settings.model_validate(
            {
                "models": {"source": "demo"},
                "datasets": [{"video_directory": "clips"}],
                "train": {"validation": {"fraction": 0.1}},
            }
        ).train.validation
        passes = validation.passes(both_tasks=False)
        every = validation.interval(1, both_tasks=False, checkpointing=checkpointing)
        assert every is not None
        print(
            f"{name:22}  step {1000 * step:6.0f} ms, pass {1000 * once:6.0f} ms ({once / step:.2f} of a step); "
            f"{passes} passes every {every} steps take {passes * once / (every * step):.2%} of the training"
        )


if __name__ == "__main__":
    main()
