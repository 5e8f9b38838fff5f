"""How long Snakemake needs to find that nothing is to be done, by the number of clips.

    python bench/bench_plan.py 100 1000 10000

Planning never opens a media file, so the clips are small files of random bytes, and the jobs are stand-ins that write
what they declare. Everything else is the real workflow.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
REPEATS = 5

STUB = REPOSITORY / "tests" / "workflow" / "stub_hv15.py"
"""Makes what the jobs declare, from their specs, without any model."""

CONFIG = """\
models: {source: demo}
datasets:
  - video_directory: clips
    resolution: [64, 64]
    target_frames: [9]
cache: {shards: 8}
sample:
  prompts:
    - {name: one, prompt: a red circle}
"""


def main() -> None:
    for count in [int(argument) for argument in sys.argv[1:]] or [10_000]:
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(Path(folder), count)
        print(
            f"{count:7} clips: median {statistics.median(seconds):.2f} s of {REPEATS} (no-op snakemake -n)", flush=True
        )


def measure(root: Path, count: int) -> list[float]:
    """Seconds of each no-op dry run."""
    project, commands = root / "project", root / "bin"
    (project / "clips").mkdir(parents=True)
    commands.mkdir()
    for number in range(count):
        (project / "clips" / f"{number:06}.mp4").write_bytes(os.urandom(64))
        (project / "clips" / f"{number:06}.txt").write_text(f"a clip that shows the number {number}")
    (project / "config.yaml").write_text(CONFIG)
    (commands / "hv15").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    (commands / "hv15").chmod(0o755)
    run(project, commands, "--quiet", "all")
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        output = run(project, commands, "-n")
        seconds.append(time.perf_counter() - start)
        if "Nothing to be done" not in output:
            raise SystemExit(f"not a no-op:\n{output}")
    return seconds


def run(project: Path, commands: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-d", project, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
