"""Whether another checkout trains the same LoRAs and plans the same figures: what no refactoring may change.

    git worktree add ../before main
    OMP_NUM_THREADS=1 python bench/compare_trees.py ../before

Trains the tiny world of tests/train in each tree, each time in a process of its own, and compares LoRAs, checkpoints
and metrics bit for bit, but for the commit and the clock. Plans the presets in each tree and compares all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

HERE = Path(__file__).parents[1]
TIMED = {"time", "step_s", "samples_per_s", "tokens_per_s", "data_wait_s", "memory", "memory_peak"}
LONG = {"max_train_steps": 12, "save_every_n_steps": 5, "state_every_n_steps": 4}
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "i2v": {"task": "i2v", "i2v_prob": 0.5, "caption_dropout": 0.2},
    "accumulation": {"gradient_accumulation_steps": 3, "lr_scheduler": "cosine", "lr_warmup_steps": 0.2},
    "dropout": {"network_dropout": 0.2, "rank_dropout": 0.1, "module_dropout": 0.1},
    "checkpointing": {"gradient_checkpointing": True},
    "offload": {"gradient_checkpointing": True, "gradient_checkpointing_cpu_offload": True},
    "8 bits": {"optimizer_type": "AdamW8bit", "optimizer_args": {"min_8bit_size": 16}},
    "Muon": {"optimizer_type": "Muon", "max_grad_norm": 0.1},
    "logit-normal": {"timestep_sampling": "logit_normal", "logit_mean": 0.3, "min_timestep": 100},
}
PRESETS = ("t2v-24gb", "i2v-16gb", "t2v-80gb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--only", choices=["train", "plan"])
    options = parser.parse_args()
    trees = (HERE, options.other.resolve())
    different = 0
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("here", "other")]
        both = list(zip(trees, folders, strict=True))
        for name, train in TRAININGS.items() if options.only != "plan" else ():
            ours, others = (trained(tree, folder / name, train) for tree, folder in both)
            different += verdict(f"train {name}", ours, others)
        for name in PRESETS if options.only != "train" else ():
            ours, others = (planned(tree, folder / name, name) for tree, folder in both)
            different += verdict(f"plan {name}", ours, others)
    raise SystemExit(1 if different else 0)


def verdict(name: str, ours: object, others: object) -> bool:
    """Print whether two results are equal; return whether they differ."""
    print(f"{name:24} {'the same' if ours == others else 'DIFFERENT'}", flush=True)
    return ours != others


def trained(tree: Path, folder: Path, train: dict[str, Any]) -> dict[str, Any]:
    """Every tensor and every line that a training in a tree wrote."""
    run(tree, "tests.train.world", str(folder), json.dumps({**LONG, **train}))
    lines = map(json.loads, (folder / "train" / "metrics.jsonl").read_text().splitlines())
    loras = {path.name: content(path) for path in sorted(folder.rglob("lora*.safetensors"))}
    assert len(loras) >= 3, loras.keys()  # the LoRA and its two checkpoints, at least
    return {**loras, "metrics": [{key: value for key, value in line.items() if key not in TIMED} for line in lines]}


def content(path: Path) -> dict[str, bytes | str]:
    """Tensors as bytes, and metadata but for the commit."""
    with safe_open(path, "np") as file:
        tensors = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118 - it is no mapping
        return tensors | {key: value for key, value in (file.metadata() or {}).items() if key != "hv15.git_commit"}


def planned(tree: Path, folder: Path, preset: str) -> Any:
    """The figures of a preset on the GPU that it is for."""
    run(tree, "hv15.cli", "new", str(folder), "--preset", preset)
    memory = preset.partition("-")[2]
    return json.loads(
        run(tree, "hv15.cli", "plan", "--json", "--memory", memory, "--config", str(folder / "config.yaml"))
    )


def run(tree: Path, module: str, *words: str) -> str:
    """Run a program of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree}: {' '.join(command)}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
