"""A tiny transformer and a tiny encoded dataset to train on; also a program, so that a test can kill a training.

python -m tests.train.world FOLDER SETTINGS_JSON
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from hv15.cache.batches import LossRule, Stores, TrainingItem
from hv15.cache.store import Store
from hv15.config import Settings, TrainSettings
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.models import DiT, DiTConfig
from hv15.spans import Span
from hv15.train.examples import EMPTY_CAPTION, Example
from hv15.train.previews import PreviewPlan
from hv15.train.run import train_dit

CONFIG = DiTConfig(
    hidden_size=32,
    num_heads=2,
    num_blocks=2,
    mlp_ratio=2.0,
    rope_dims=(4, 6, 6),
    latent_channels=4,
    text_dim=16,
    glyph_dim=10,
    glyph_hidden=16,
    vision_dim=12,
    refiner_blocks=1,
)
SHAPES = [(3, 4, 6), (2, 6, 4), (1, 4, 6)]
VISION_TOKENS = 5
HELD_OUT = 2
"""Clips that are not trained on if a training has a validation."""


def tiny_dit(config: DiTConfig = CONFIG) -> DiT:
    """A frozen random transformer, always the same one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DiT(config).eval().requires_grad_(False)


def tiny_stores(folder: Path, clips: int = 6) -> tuple[list[TrainingItem], Stores]:
    """Clips of three shapes, the third a still image, each with vision states and a caption of its own."""
    stores = Stores(Store(folder, "latents", "a"), Store(folder, "text", "b"))
    rng = torch.Generator().manual_seed(1)
    items = []
    for number in range(clips):
        shape = SHAPES[number % len(SHAPES)]
        item = TrainingItem(
            f"{number:02d}clip", f"{number:02d}caption", shape, batch_size=2, name=f"clips/{number:02d}.mp4"
        )
        level = torch.full((CONFIG.latent_channels, 1, 1, 1), 1.5 - number / 2)
        latents = level + 0.1 * torch.randn(CONFIG.latent_channels, *shape, generator=rng)
        stores.latents.write(  # type: ignore[attr-defined]
            item.clip, {"latents": latents, "vision": torch.randn(VISION_TOKENS, 12, generator=rng)}, {}
        )
        write_text(stores, item.caption, torch.randn(3 + number, 16, generator=rng), number % 3)
        items.append(item)
    write_text(stores, EMPTY_CAPTION, torch.randn(2, 16, generator=rng), 0)
    return items, stores


def varied(items: Sequence[TrainingItem]) -> list[TrainingItem]:
    """The items with all that a dataset can vary: texts to draw, a weight, and a begin or an end within 4 steps."""
    texts = tuple(item.caption for item in items)
    changes: list[dict[str, Any]] = [
        {"dataset": "early", "span": Span(0, 2), "loss_weight": 0.5},
        {"dataset": "late", "span": Span(1), "variants": texts},
        {"variants": texts[:3]},
    ]
    return [replace(item, **changes[number % 3]) for number, item in enumerate(items)]


def aimed(items: Sequence[TrainingItem], stores: Stores, folder: Path) -> tuple[list[TrainingItem], Stores]:
    """Items of `varied`, those of one dataset as regularisation, and those of another with masks."""
    masks = Store(folder, "masks", "c")
    rules = {
        "early": LossRule(is_reg=True, targets_prior=True),
        "late": LossRule(unmasked_probability=0.3, masked_prior_preservation_weight=0.5),
    }
    found = [replace(item, loss=rules.get(item.dataset, item.loss)) for item in items]
    for number, item in enumerate(found):
        if item.dataset == "late":
            found[number] = replace(item, mask=f"{number:02d}mask")
            rng = torch.Generator().manual_seed(number)
            masks.write(found[number].mask, {"mask": torch.rand(item.shape, generator=rng)}, {})
    return found, replace(stores, masks=masks)


def write_text(stores: Stores, key: str, text: Tensor, glyphs: int) -> None:
    stores.texts.write(key, {"text": text, "glyphs": torch.ones(glyphs, 10)}, {})  # type: ignore[attr-defined]


def settings(task: str = "t2v", **train: Any) -> Settings:
    """Settings of a short training; the model paths and datasets in them are never read."""
    short = {
        "max_train_steps": 6,
        "network_dim": 4,
        "network_alpha": 4,
        "learning_rate": 1e-2,
        "optimizer_type": "AdamW",
        "gradient_checkpointing": False,  # twice as slow; it has a test of its own
    }
    return Settings.model_validate(
        {
            "task": task,
            "models": {"source": "demo"},
            "datasets": [{"video_directory": "clips", "resolution": [64, 64]}],
            "runtime": {"device": "cpu"},
            "train": {**short, **train},
        }
    )


_NOT_IN_SPECS = (Affects.SPEED, Affects.WATCHING, Affects.STEP, Affects.APART, Affects.PUBLISHING, Affects.SAMPLING)


def spec_of(config: Settings) -> dict[str, Any]:
    every = config.dump()["train"]
    train = {name: value for name, value in every.items() if affects(TrainSettings, name) not in _NOT_IN_SPECS}
    if config.train.validation.patience is not None:
        train["validation"] = {name: value for name, value in every["validation"].items() if name != "keep_best"}
    train["batches_per_step"] = config.train.batches_per_step
    return {"train": train, "task": config.task, "dataset": {"digest": "d", "size": 6}, "dit": "tiny"}


def run(
    folder: Path,
    config: Settings,
    *,
    data: tuple[Sequence[TrainingItem], Stores] | None = None,
    dit: DiT | None = None,
    spec: Mapping[str, Any] | None = None,
    previews: PreviewPlan | None = None,
) -> Path:
    """Train into a folder and return the LoRA's path; with validation, the first two clips are not trained on."""
    output = folder / "lora.safetensors"
    items, stores = data or tiny_stores(folder / "cache")
    held_out = items[:HELD_OUT] if config.train.validation.is_on else []
    items = items[len(held_out) :]
    spec = spec or spec_of(config)
    dit, accelerator = dit or tiny_dit(), Accelerator(cpu=True)
    made = {"dit": dit, "accelerator": accelerator}
    train_dit(config, spec, items, stores, output, **made, held_out=held_out, previews=previews)
    return output


def spoil(monkeypatch: pytest.MonkeyPatch, *bad: int, factor: float = math.nan) -> None:
    """Multiply the model's input in these forward passes, counted from 1 (without accumulation, in these steps)."""
    real, calls = Example.model_input, []

    def model_input(example: Example) -> Tensor:
        calls.append(1)
        return real(example) * (factor if len(calls) in bad else 1)

    monkeypatch.setattr(Example, "model_input", model_input)


def metrics(folder: Path, kind: str = "step") -> list[dict[str, Any]]:
    """The lines of a kind in a run's metrics.jsonl."""
    lines = (folder / "train" / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


TIMED = {"time", "seconds", "step_s", "samples_per_s", "tokens_per_s", "data_wait_s", "memory", "memory_peak"}


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without what a clock or the machine decides."""
    return [{name: value for name, value in record.items() if name not in TIMED} for record in records]


if __name__ == "__main__":
    run(Path(sys.argv[1]), settings(**json.loads(sys.argv[2])))
