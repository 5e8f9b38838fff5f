"""The processor time of a training step, with all that the training loop does around it, here and in another checkout.

    git worktree add --detach ../before COMMIT
    OMP_NUM_THREADS=1 python bench/compare_steps.py ../before [--rounds 7]

Width 512, 12 blocks, LoRA of rank 16, float32 on the CPU, encoded clips on the disk. Both trees train in turns, each in
a process of its own; a round's figure is the median over its steps, from one call of the optimizer to the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
WAYS: dict[str, dict[str, Any]] = {
    "gradient checkpointing": {"gradient_checkpointing": True},
    "kept activations": {"gradient_checkpointing": False},
}
STEPS, CLIPS, TEXT_TOKENS, RANK = 5, 4, 64, 16
GRID = (2, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", action="store_true", help="train whenever a line comes (for this program itself)")
    options = parser.parse_args()
    if options.child:
        train_when_asked()
        return
    trees = {"here": HERE, "there": options.other.resolve()}
    children = {name: start(tree) for name, tree in trees.items()}
    found: dict[str, dict[str, list[float]]] = {way: {name: [] for name in trees} for way in WAYS}
    for number in range(options.rounds + 1):  # the first one warms up
        for way in WAYS:
            for name in list(trees)[:: 1 if number % 2 else -1]:
                seconds = ask(children[name], way)
                if number:
                    found[way][name].append(seconds)
            if number:
                here, there = (found[way][name][-1] for name in trees)
                print(f"round {number}, {way}: {1000 * here:.0f} and {1000 * there:.0f} ms", flush=True)
    for child in children.values():
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    for way, times in found.items():
        here, there = (statistics.median(times[name]) for name in trees)
        ratios = [a / b for a, b in zip(times["here"], times["there"], strict=True)]
        print(f"{way}: {1000 * here:.0f} ms here, {1000 * there:.0f} ms there, ratio {statistics.median(ratios):.3f}")


def start(tree: Path) -> subprocess.Popen[str]:
    """Start this program with the packages of a tree."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ask(child: subprocess.Popen[str], way: str) -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{way}\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def train_when_asked() -> None:
    """Train for each line of stdin, and write the processor's seconds of a step."""
    import torch
    from accelerate import Accelerator

    from hv15.cache.batches import Stores, TrainingItem
    from hv15.cache.store import Store
    from hv15.config import Settings
    from hv15.models import DiT, DiTConfig
    from hv15.train.run import train_dit

    sizes = DiTConfig(
        hidden_size=512,
        num_heads=8,
        num_blocks=12,
        rope_dims=(8, 28, 28),
        text_dim=512,
        glyph_dim=128,
        glyph_hidden=128,
    )
    torch.manual_seed(0)
    dit, accelerator = DiT(sizes).requires_grad_(False).eval(), Accelerator(cpu=True)
    moments: list[float] = []
    real = torch.optim.AdamW.step

    def step(*arguments: Any, **options: Any) -> Any:
        moments.append(time.process_time())
        return real(*arguments, **options)

    setattr(torch.optim.AdamW, "step", step)  # noqa: B010  (a method)
    with tempfile.TemporaryDirectory() as folder:
        latents, texts = Store(Path(folder), "latents", "a"), Store(Path(folder), "text", "b")
        items = []
        for number in range(CLIPS):
            text = {"text": torch.randn(TEXT_TOKENS, sizes.text_dim), "glyphs": torch.zeros(0, sizes.glyph_dim)}
            texts.write(f"{number:02d}text", text, {})
            latents.write(f"{number:02d}clip", {"latents": torch.randn(sizes.latent_channels, *GRID)}, {})
            items.append(TrainingItem(f"{number:02d}clip", f"{number:02d}text", GRID))
        for count, way in enumerate(sys.stdin):
            train = {"max_train_steps": STEPS, "optimizer_type": "AdamW", "network_dim": RANK, "network_alpha": RANK}
            config = Settings.model_validate(
                {
                    "models": {"source": "demo"},
                    "datasets": [{"video_directory": "clips"}],
                    "runtime": {"device": "cpu"},
                    "train": {**train, **WAYS[way.strip()]},
                }
            )
            moments.clear()
            output = Path(folder) / str(count) / "lora.safetensors"
            output.parent.mkdir()
            spec = {"train": config.dump()["train"]}
            train_dit(config, spec, items, Stores(latents, texts), output, dit=dit, accelerator=accelerator)
            gaps = [after - before for before, after in pairwise(moments)]
            print(statistics.median(gaps), flush=True)


if __name__ == "__main__":
    main()
