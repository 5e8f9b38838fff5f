"""Made-up trainings, as a project of several experiments would leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hv15.config import load_config
from hv15.data.encode import write_video
from hv15.records.json_values import JsonObject
from hv15.records.metadata import SAMPLE
from hv15.records.metrics import ValidationRecord
from hv15.records.outputs import VIDEO
from hv15.records.paths import ProjectPaths
from hv15.records.training import TrainingRecord
from hv15.sample.plan import BASE_SUFFIX
from hv15.sample.prompts import SampleSpec
from tests.records.steps import lines, start_record, step_record

EVEN = tuple(number / 10 for number in range(1, 10))
STEPS = 20
CONFIG = """\
models: {source: demo}
datasets: [{video_directory: clips, resolution: [64, 64], target_frames: [9]}]
train: {max_train_steps: 20, validation: {fraction: 0.1, noise_levels: even}}
sample: {prompts: [{name: cat, prompt: a cat}]}
"""


def make_training(
    root: Path,
    run: str = "",
    *,
    losses: Sequence[float | None] = (0.5, 0.4, 0.45),
    sigmas: Sequence[float] = EVEN,
    steps: int = STEPS,
    past: JsonObject | None = None,
    clips: str = "",
    **train: object,
) -> ProjectPaths:
    """Write what a training leaves: its record, its metrics with validations evenly over the steps, a LoRA of 1 kB.

    Args:
        losses: of the validations; each noise level has the same one.
        steps: finished ones.
        clips: stands for the clips that were measured.
        train: settings.
    """
    paths = ProjectPaths(root, run)
    paths.training.mkdir(parents=True)
    config = root / "config.yaml"
    config.write_text(CONFIG)
    settings = load_config(config, {"train": train}).dump()  # type: ignore[dict-item]  # what a test gives
    known: JsonObject = {"dataset": {"digest": "0123456789", "size": 12}, "dit": "demo"}
    TrainingRecord(known if past is None else past, settings).write(paths.training)
    records = [start_record(STEPS), *(step_record(step, loss=1 / step) for step in range(1, steps + 1))]
    for number, loss in enumerate(losses, start=1):
        at = round(steps * number / len(losses))
        levels = (loss,) * len(sigmas)
        records.append(
            ValidationRecord(
                step=at,
                time=1e9,
                loss=loss,
                trained_loss=0.3,
                loss_by_quantile=levels,
                sigmas=tuple(sigmas),
                clips=clips,
            )
        )
    paths.metrics.write_text(lines(*records))
    paths.trained.write_bytes(bytes(1024))
    return paths


def ablation(root: Path, shifts: Sequence[float] = (1.0, 3.0), seeds: Sequence[int] = (1, 2, 3)) -> list[ProjectPaths]:
    """Make trainings of several shifts and seeds; the smallest shift is the best, and seeds differ by 0.01."""
    return [
        make_training(
            root,
            f"shift-{shift:g}_seed-{seed}",
            losses=(0.9, 0.3 + shift / 10 + seed / 100),
            discrete_flow_shift=shift,
            seed=seed,
        )
        for shift in shifts
        for seed in seeds
    ]


def make_sample(paths: ProjectPaths, name: str, grey: int, **changes: object) -> Path:
    """Write a video of one grey that tells how it was made."""
    spec = SampleSpec(
        name=name,
        task="t2v",
        prompt=f"a {name.removesuffix(BASE_SUFFIX)} <i>runs</i>",
        negative_prompt="",
        height=32,
        width=32,
        frames=5,
        steps=2,
        guidance_scale=1.0,
        flow_shift=3.0,
        seed=7,
        fps=24.0,
        output_type="video",
        dtype="float32",
        quantize="none",
        vae_sample_size=0,
        vae_tile_overlap=0.25,
        variant="480p_t2v",
        lora_multiplier=None if name.endswith(BASE_SUFFIX) else 1.0,
        image=None,
        loras=(),
        models={"dit": "demo", "vae": "demo"},
    )
    spec = replace(spec, **changes)  # type: ignore[arg-type]  # the fields of a spec, whatever their types
    file = VIDEO.path(paths, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    frames = (np.full((spec.height, spec.width, 3), grey, np.uint8) for _ in range(spec.frames))
    write_video(file, frames, spec.fps, {SAMPLE: spec.to_text()})
    return file
