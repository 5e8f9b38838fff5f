"""What several samples cost together and one by one: loads of the models, processes and seconds of a core.

python bench/bench_shards.py [--samples 6] [--steps 16]

A project with the demo's base samples N prompts: once by the job of a shard, once by the jobs of each sample, as the
workflow starts them. Both give the same bytes, which is checked. A load of the demo's transformer takes no time to
speak of; that of a published one reads 16.7 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml

from hv15.demo.layout import copy_base
from hv15.project import Project
from hv15.records.outputs import LATENTS, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.workflow import make_planner

REPOSITORY = Path(__file__).parents[1]
PATHS = ProjectPaths()
COUNTED = """
import sys
import hv15.models.ready, hv15.sample.decode
from hv15.cli import main

def counting(place, name):
    load = getattr(place, name)
    def loaded(*words, **named):
        print(f"counted {name}", file=sys.stderr)
        return load(*words, **named)
    setattr(place, name, loaded)

counting(hv15.models.ready, "load_dit")
counting(hv15.sample.decode, "load_vae")
sys.exit(main())
"""
"""Runs `hv15` and tells of each load."""


def make_project(folder: Path, samples: int, steps: int) -> Project:
    """A project of which nothing is made but the encoded texts."""
    prompts = [{"name": f"sample{number}", "prompt": "a red circle", "seed": number} for number in range(samples)]
    size = {"video_size": [64, 64], "video_length": 17, "infer_steps": steps}
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"models": {"source": "demo"}, "sample": {**size, "prompts": prompts}})
    )
    copy_base(folder / "models")
    hv15(folder, "encode", "texts")
    project = Project(folder / "config.yaml")
    make_planner(project, dry_run=False, devices=1).prepare()
    return project


def hv15(folder: Path, *words: str | Path) -> str:
    """Run a command in a process of its own and return what it says."""
    command = [sys.executable, "-c", COUNTED, *map(str, words)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = list(make_project(folder, options.samples, options.steps).samples)
        shard = [("stage", "shard", "--spec", PATHS.spec("sample_shard.0"), "--out", PATHS.made("sample_shard.0"))]
        alone: list[tuple[str | Path, ...]] = []
        for each in names:
            latents, video = LATENTS.path(PATHS, each), VIDEO.path(PATHS, each)
            spec = PATHS.spec(f"sample_latents.{each}")
            alone.append(("stage", "denoise", "--spec", spec, "--out", latents))
            spec = PATHS.spec(f"sample_video.{each}")
            alone.append(("stage", "decode", "--spec", spec, "--latents", latents, "--out", video))
        print(f"{'':24} {'processes':>9} {'transformers':>12} {'VAEs':>5} {'CPU s':>8}")
        for title, commands in (("one job for all", shard), ("jobs of their own", alone)):
            began = os.times().children_user
            said = "".join(hv15(folder, *words) for words in commands)
            seconds = os.times().children_user - began
            loads = [said.count(f"counted {load}") for load in ("load_dit", "load_vae")]
            print(f"{title:24} {len(commands):9} {loads[0]:12} {loads[1]:5} {seconds:8.1f}")
        for each in names:
            for product in (LATENTS.path(PATHS, each), VIDEO.path(PATHS, each)):
                together = folder / PATHS.before_taken(product)
                if together.read_bytes() != (folder / product).read_bytes():
                    raise SystemExit(f"{product} differs")


if __name__ == "__main__":
    main()
