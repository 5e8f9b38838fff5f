"""Time of planning 1, 10 and 100 experiments in one DAG: `snakemake -n experiments`, with processor seconds.

    python bench/bench_experiments.py [--clips N] [--counts 1,10,100]

The project is the demo's config with a sweep over learning rates and seeds. `--clips` adds small files that stand for
clips: a plan opens none. Each count is planned twice; the second time, all files are known.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hv15.config.presets import DEMO, preset_text
from hv15.home import workflow_folder

RATES, SEEDS = 10, 10


def make_project(root: Path, experiments: int, clips: int) -> None:
    """Write a project with so many experiments, and so many clips beside the demo's."""
    rates = min(RATES, experiments)
    grid = ", ".join(f"{1e-4 * (number + 1):g}" for number in range(rates))
    seeds = ", ".join(map(str, range(1, max(1, experiments // rates) + 1)))
    text = preset_text(DEMO) + f"\nsweep:\n  grid: {{train.learning_rate: [{grid}]}}\n  seeds: [{seeds}]\n"
    folder = root / "more"
    folder.mkdir(parents=True)
    for number in range(clips):
        (folder / f"{number}.mp4").write_bytes(b"clip %d" % number)
        (folder / f"{number}.txt").write_text(f"clip {number}")
    if clips:
        text = text.replace("datasets:\n", "datasets:\n  - {video_directory: more, target_frames: [9]}\n", 1)
    (root / "config.yaml").write_text(text)


def plan(root: Path) -> tuple[float, float, int]:
    """Plan all experiments; return wall-clock and processor seconds, and the number of jobs."""
    command = [sys.executable, "-m", "snakemake", "-n", "experiments", "-d", str(root)]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=workflow_folder(), env=os.environ, capture_output=True, text=True, check=True)
    taken, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    totals = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("total ")]
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, int(totals[0]) if totals else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--counts", default="1,10,100")
    options = parser.parse_args()
    print(f"{'experiments':>11}{'clips':>8}{'jobs':>7}{'first: s':>10}{'CPU s':>8}{'again: s':>10}{'CPU s':>8}")
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "project"
            make_project(root, count, options.clips)
            (wall, used, jobs), (wall_again, used_again, _) = plan(root), plan(root)
            row = (
                f"{count:>11}{options.clips:>8}{jobs:>7}{wall:>10.1f}{used:>8.1f}{wall_again:>10.1f}{used_again:>8.1f}"
            )
            print(row, flush=True)


if __name__ == "__main__":
    main()
