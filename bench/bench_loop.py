"""What a training does beside its steps: waiting for data, metrics, validation, previews; each beside a training step.

    OMP_NUM_THREADS=1 python bench/bench_loop.py [--steps 6] [--grid 3 8 12]

Width 512, 12 blocks, LoRA of rank 16, float32 on the CPU, encoded clips on the disk, with the trainer's own loop. All
are ratios of medians, so other work on the machine matters little. The goals:

- waiting for data below 2 % of a step, metrics below 1 %
- a validation that is as often as by default below 1 % of the training. A forward pass is taken for a third of a step
  with gradient checkpointing, else for half of one (hv15.config.training.validation). At full size, `hv15 plan` says it
  and tests/plan/test_validation.py checks it for each preset.
- a preview takes as long as the final sample (denoising; both are decoded by the same function)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator

from hv15.cache.batches import Stores, TrainingItem
from hv15.cache.store import Store
from hv15.config import Settings
from hv15.data.captions import caption_key
from hv15.lora.apply import apply_lora
from hv15.lora.files import read_lora
from hv15.models import DiT, DiTConfig
from hv15.records.json_values import parse_object
from hv15.sample.prompts import SampleSpec
from hv15.sample.sampling import run as sample
from hv15.train import previews
from hv15.train.loop import Trainer
from hv15.train.metrics import MetricsFile
from hv15.train.previews import Preview, PreviewPlan, Previews
from hv15.train.run import train_dit

SIZES = DiTConfig(
    hidden_size=512, num_heads=8, num_blocks=12, rope_dims=(8, 28, 28), text_dim=512, glyph_dim=128, glyph_hidden=128
)
TEXT_TOKENS, CLIPS, HELD_OUT, RANK = 64, 6, 2, 16
SPEC = SampleSpec(
    name="sample",
    task="t2v",
    prompt="prompt",
    negative_prompt="",
    height=128,
    width=128,
    frames=9,
    steps=4,
    guidance_scale=1.0,
    flow_shift=5.0,
    seed=1,
    fps=24.0,
    output_type="video",
    dtype="float32",
    quantize="none",
    vae_sample_size=0,
    vae_tile_overlap=0.25,
    variant="480p_t2v",
    lora_multiplier=1.0,
    image=None,
    loras=(),
    models={"dit": "", "vae": ""},
)


class Clock:
    """The seconds of each call of some functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def timed(self, owner: Any, name: str) -> None:
        """Replace a function by itself with a clock."""
        real: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            begun = perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                self.seconds.setdefault(name, []).append(perf_counter() - begun)

        setattr(owner, name, call)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def stores(folder: Path, grid: list[int]) -> tuple[list[TrainingItem], Stores]:
    """Clips and captions on the disk."""
    latents, texts = Store(folder, "latents", "a"), Store(folder, "text", "b")
    for key in (caption_key(SPEC.prompt), *(f"{number:02d}text" for number in range(CLIPS))):
        texts.write(
            key, {"text": torch.randn(TEXT_TOKENS, SIZES.text_dim), "glyphs": torch.zeros(0, SIZES.glyph_dim)}, {}
        )
    for number in range(CLIPS):
        latents.write(f"{number:02d}clip", {"latents": torch.randn(SIZES.latent_channels, *grid)}, {})
    items = [TrainingItem(f"{n:02d}clip", f"{n:02d}text", (grid[0], grid[1], grid[2])) for n in range(CLIPS)]
    return items, Stores(latents, texts)


def settings(steps: int, **options: Any) -> Settings:
    train = {
        "max_train_steps": steps,
        "optimizer_type": "AdamW",
        "network_dim": RANK,
        "network_alpha": RANK,
        "validation": {"fraction": 0.1, "every_n_steps": 2, "samples": 3},
        "preview_every_n_steps": steps,
        **options,
    }
    return Settings.model_validate(
        {
            "models": {"source": "demo"},
            "datasets": [{"video_directory": "clips"}],
            "runtime": {"device": "cpu"},
            "train": train,
        }
    )


def measure(folder: Path, checkpointing: bool, grid: list[int], steps: int, clock: Clock) -> dict[str, float]:
    """Train; return seconds by name."""
    config = settings(steps, gradient_checkpointing=checkpointing)
    items, both = stores(folder / "cache", grid)
    dit = DiT(SIZES).requires_grad_(False).eval()
    clock.seconds.clear()
    train_dit(
        config,
        {"train": config.dump()["train"]},
        items[HELD_OUT:],
        both,
        folder / "lora.safetensors",
        dit=dit,
        accelerator=Accelerator(cpu=True),
        held_out=items[:HELD_OUT],
        previews=PreviewPlan([Preview("sample", SPEC, None)], "", "", folder, folder / "vae", patch_conv=False),
    )
    records = [parse_object(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]

    def median(kind: str, name: str) -> float:
        return statistics.median(float(str(each[name])) for each in records if each["kind"] == kind)

    apply_lora(dit, read_lora(folder / "lora.safetensors")[0], 1.0)
    text = both.texts.read(caption_key(SPEC.prompt))
    begun = perf_counter()
    sample(dit, SPEC, text, None, None, None, device=torch.device("cpu"))
    return {
        "step": median("step", "step_s"),
        "wait": median("step", "data_wait_s"),
        "example": clock.median("_read"),
        "metrics": clock.median("_read_back") + clock.median("write"),
        "pass": median("validation", "seconds") / config.train.validation.passes(both_tasks=False),
        "preview": clock.median("_denoise"),
        "sample": perf_counter() - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--grid", type=int, nargs=3, default=[3, 8, 12])
    options = parser.parse_args()
    torch.manual_seed(0)
    clock = Clock()
    for owner, name in ((Trainer, "_read"), (Trainer, "_read_back"), (MetricsFile, "write"), (Previews, "_denoise")):
        clock.timed(owner, name)
    setattr(previews, "decode_latents", lambda *_, **__: None)  # noqa: B010  (the samplers' own, and not measured)
    for title, checkpointing in (("gradient checkpointing", True), ("kept activations", False)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), checkpointing, options.grid, options.steps, clock)
        step, default = found["step"], settings(2, validation={"fraction": 0.1}).train.validation
        passes = default.passes(both_tasks=False)
        every = default.interval(1, both_tasks=False, checkpointing=checkpointing)
        assert every is not None
        print(f"{title}: a step takes {1000 * step:.0f} ms")
        print(f"  waiting for data  {found['wait'] / step:8.3%} of a step; reading it {1000 * found['example']:.1f} ms")
        print(f"  metrics           {found['metrics'] / step:8.3%} of a step, {1000 * found['metrics']:.2f} ms")
        print(
            f"  validation        {passes * found['pass'] / (every * step):8.3%} of a training: {passes} passes every "
            f"{every} steps, each {found['pass'] / step:.2f} of a step"
        )
        print(f"  a preview         {found['preview'] / found['sample']:8.2f} of a final sample's time")


if __name__ == "__main__":
    main()
