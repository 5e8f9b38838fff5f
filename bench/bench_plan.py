"""How long Snakemake needs to find that nothing is to be done, by the number of clips.

    python bench/bench_plan.py 100 1000 10000

Planning never opens a media file, so the clips are small files of random bytes, and the encoding and training commands
are replaced by a stub that writes what they would declare. Everything else is the real workflow.
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

STUB = """#!{python}
import json
from pathlib import Path
from hv15.cache.plan import Manifest
from hv15.cli import parse
from hv15.commands.options.files import Convert, DemoModels
from hv15.commands.options.stages import Encode, EncodeLatents, SampleDenoise, Spec, Train
from hv15.project import Project

command = parse()
outputs = [command.out] if getattr(command, "out", None) else []
if isinstance(command, Encode):
    project = Project(command.config)
    plan = project.latents if isinstance(command, EncodeLatents) else project.texts
    manifest = Manifest(command.out)
    for key in plan.by_shard[command.shard]:
        item = key[:64]
        manifest.entries[key] = {{"clips": [{{"key": item}}]}} if plan.kind == "latents" else {{}}
        plan.store.path(item).parent.mkdir(parents=True, exist_ok=True)
        plan.store.path(item).touch()
    manifest.save(plan.kind, plan.settings)
elif isinstance(command, DemoModels):
    from hv15.demo.layout import DEMO_OUTPUTS
    outputs = [Path("models") / name for name in DEMO_OUTPUTS]
elif isinstance(command, Convert):
    outputs = [command.target]
for path in outputs:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

# What a plan looks into: the specs, and what the products say of theirs.
told = {{}}
if isinstance(command, Spec):
    command.run()
elif isinstance(command, Train):
    told = {{"hv15.spec": json.dumps(Project(command.config).train_spec)}}
elif isinstance(command, SampleDenoise):
    from hv15.models.weights.fingerprint import model_fingerprint
    fingerprint = model_fingerprint(command.lora)
    spec = Project(command.config).sample(command.out.name.split(".")[0])
    told = {{"hv15.sample": spec.to_text(), "hv15.loras": json.dumps([{{"fingerprint": fingerprint}}])}}
if told:
    from safetensors.numpy import save_file
    save_file({{}}, command.out, told)
"""

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
    (commands / "hv15").write_text(STUB.format(python=sys.executable))
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
