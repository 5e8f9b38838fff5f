"""How often the demo's base and a LoRA on it show what the prompt says: test_behaviour.py with more samples.

python bench/bench_demo.py [--samples 64] [--base FOLDER] [--keep FOLDER]

Trains the default project's LoRA, then samples prompts that its training has not seen: the base at several guidances,
image-to-video, and the LoRA with and without its word, converted and back, merged, and on quantised and swapped bases.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from demo_base.trials import MeasuredSample, SamplingOptions, ToySampler, contrast, spread, unseen_concepts
from hv15 import cli
from hv15.config.sample import SampleSettings
from hv15.demo.layout import BASE, copy_base
from hv15.demo.measure import psnr
from hv15.demo.world import render, scenes
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import DiT
from hv15.models.ready import load_ready

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--samples", type=int, default=64)
parser.add_argument("--keep", type=Path, help="a folder for the project, kept and used again")
parser.add_argument("--base", type=Path, default=BASE, help="another base, such as demo/base")
options = parser.parse_args()

CONFIG = Path(__file__).parents[1] / "config.yaml"
PLAIN, WORDS = spread(scenes(), options.samples), spread(unseen_concepts(), options.samples)


def teach(folder: Path) -> Path:
    """Make the default project's LoRA."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.read_text())
    copy_base(folder / "models", options.base)
    lora = folder / "results" / "train.safetensors"
    started = time.process_time()
    for words in (["encode", "latents"], ["encode", "texts"], ["train", "--out", str(lora)]):
        if cli.main([*words, "--config", str(folder / "config.yaml")]):
            raise SystemExit(f"hv15 {' '.join(words)} failed")
    print(f"encoding and training: {time.process_time() - started:.0f} s of one core")
    return lora


def transformer(path: Path, lora: Path | None = None, **settings: object) -> DiT:
    dit = load_ready(path, SampleSettings.model_validate(settings), device="cpu", dtype=torch.float32)
    apply_all(dit, [WeightedLoRA(lora)] if lora else [])
    return dit


def say(name: str, shown: Sequence[MeasuredSample]) -> None:
    shares = [np.mean([getattr(each, part) for each in shown]) for part in ("moves_right", "is_right", "has_concept")]
    jitter = np.median([each.found.jitter for each in shown])
    numbers = "".join(f"{100 * share:12.1f} %" for share in shares)
    print(f"{name:<34}{numbers}{jitter:10.2f}{contrast(shown):10.3f}", flush=True)


def main(folder: Path) -> None:
    lora = teach(folder)
    sampler = ToySampler.of(folder / "models")
    dit = Path(sampler.paths["dit"])
    base, taught = transformer(dit), transformer(dit, lora)
    print(f"{'':<34}{'colour+way':>14}{'all right':>14}{'zorpward':>14}{'jitter px':>10}{'contrast':>10}")
    for guidance in (1.0, 3.0, 4.0, 6.0):
        say(f"base, guidance {guidance:g}", sampler.sample(base, PLAIN, SamplingOptions(guidance=guidance)))
    held_out = [scene for scene in scenes() if scene.held_out]
    say(f"base, {len(held_out)} held-out scenes", sampler.sample(base, held_out))
    images = [render(scene, 7)[0] for scene in PLAIN]
    shown = sampler.sample(base, PLAIN, images=images)
    say("base, image-to-video", shown)
    levels = np.array([psnr(each.frames[0], image) for each, image in zip(shown, images, strict=True)])
    moves = np.array([each.found.motion == each.scene.motion for each in shown])
    print(
        f"  first frame {np.median(levels):.1f} dB (median), {np.min(levels):.1f} dB (least), motion as prompted "
        f"{100 * moves.mean():.1f} %, both {100 * (moves & (levels >= 22)).mean():.1f} %"
    )
    say("zorpward without the LoRA", sampler.sample(base, WORDS))
    say("zorpward with the LoRA", sampler.sample(taught, WORDS))
    say("other prompts with the LoRA", sampler.sample(taught, PLAIN))
    there, back, merged = (folder / f"{name}.safetensors" for name in ("comfyui", "back", "merged"))
    cli.main(["convert", str(lora), str(there)])
    cli.main(["convert", str(there), str(back), "--reverse"])
    say("zorpward, by way of ComfyUI's names", sampler.sample(transformer(dit, back), WORDS))
    cli.main(["merge", "--out", str(merged), "--lora", str(lora), "--config", str(folder / "config.yaml")])
    say("zorpward, merged", sampler.sample(transformer(merged), WORDS))
    for kind in ("fp8", "int8", "nf4"):
        say(f"zorpward, {kind} base", sampler.sample(transformer(dit, lora, quantize=kind), WORDS))
    say("zorpward, 3 blocks swapped", sampler.sample(transformer(dit, lora, blocks_to_swap=3), WORDS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if options.keep:
        main(options.keep)
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
