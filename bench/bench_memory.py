"""Peak memory of each stage's command: what one process needs at most, and how much of it is the model.

Usage: OMP_NUM_THREADS=2 python bench/bench_memory.py [--size tiny|middle] [--folder FOLDER]

Makes random models (tiny: the demo's; middle: a transformer of width 512 with 12 blocks), a few clips and a project for
image-to-video, then runs the commands one after the other as the workflow does. A stage loads one big model at a time,
so its peak should stay near "imports" + that model (in float32 on a CPU) + what it computes with.

This process stays free of torch on purpose: on Linux a child starts with its parent's peak.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MAKE_PROJECT = """
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch
from hv15.demo import models
from hv15.demo.clips import render_demo_clips

folder, size = Path(sys.argv[1]), sys.argv[2]
render_demo_clips(folder / "clips")
if size == "tiny":
    models.make_demo_models(folder / "models")
else:
    text = dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=8,
                mrope_section=[16, 24, 24])
    dit = replace(models.DIT, hidden_size=512, num_heads=8, num_blocks=12, rope_dims=(8, 28, 28), text_dim=1024)
    vae = replace(models.VAE_SIZES, block_out_channels=(32, 64, 128, 256, 256), layers_per_block=2)
    with patch.dict(models.TEXT, text), patch.object(models, "DIT", dit), patch.object(models, "VAE_SIZES", vae):
        models.make_demo_models(folder / "models")
"""

CONFIG = """
task: i2v
models:
  variant: 480p_i2v
  dit: models/dit.safetensors
  vae: models/vae.safetensors
  text_encoder: models/qwen.safetensors
  tokenizer: models/tokenizer
  glyph_encoder: models/byt5.safetensors
  image_encoder: models/siglip.safetensors
datasets:
  - {video_directory: clips, resolution: [64, 64], target_frames: [9]}
train: {max_train_steps: 2, network_dim: 8, network_alpha: 8, optimizer_type: AdamW}
sample:
  video_size: [128, 128]
  video_length: 17
  infer_steps: 4
  prompts: [{name: one, prompt: a red circle moving right, image_path: first_frame.png}]
"""

SPEC, CONDITION, LATENTS = (f"one{end}" for end in (".json", ".condition.safetensors", ".latents.safetensors"))
LORA = "results/train.safetensors"  # where `hv15 train` puts it
COMMANDS: dict[str, tuple[list[str], list[str]]] = {  # stage -> the command and the models that it loads
    "encode texts": (["encode", "texts"], ["qwen", "byt5"]),
    "encode latents": (["encode", "latents"], ["vae", "siglip"]),
    "train": (["train"], ["dit"]),
    "sample spec": (["spec", "sample", "--name", "one", "--out", SPEC], []),
    "stage condition": (["stage", "condition", "--spec", SPEC, "--out", CONDITION], ["vae", "siglip"]),
    "stage denoise": (
        ["stage", "denoise", "--spec", SPEC, "--lora", LORA, "--condition", CONDITION, "--out", LATENTS],
        ["dit"],
    ),
    "stage decode": (["stage", "decode", "--spec", SPEC, "--latents", LATENTS, "--out", "one.mp4"], ["vae"]),
}


def peak_mib(command: list[str], folder: Path) -> float:
    """Run a command; return its largest resident size in MiB."""
    log = folder / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()}")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("tiny", "middle"), default="middle")
    parser.add_argument("--folder", type=Path, help="where the project is made; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(CONFIG)
        peak_mib([sys.executable, "-c", MAKE_PROJECT, str(folder), options.size], folder)
        imports = peak_mib([sys.executable, "-c", "import torch, transformers, av, hv15.models.dit"], folder)
        print(f"{'stage':18} {'largest model MiB':>18} {'peak MiB':>9} {'over imports':>13}")
        print(f"{'imports':18} {'':>18} {imports:9.0f} {'':>13}")
        for stage, (arguments, names) in COMMANDS.items():
            peak = peak_mib([sys.executable, "-m", "hv15.cli", *arguments], folder)
            sizes = [2 * (folder / f"models/{name}.safetensors").stat().st_size / 2**20 for name in names]  # as float32
            print(f"{stage:18} {max(sizes, default=0):18.0f} {peak:9.0f} {peak - imports:13.0f}")


if __name__ == "__main__":
    main()
