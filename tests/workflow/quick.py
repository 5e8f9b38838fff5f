"""A project whose jobs are stand-ins (stub_hv15.py): Snakemake and the planner for real, a call in two seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from safetensors.torch import save_file

from hv15.demo.layout import BASE
from hv15.lora.fit import trainable_layers
from hv15.models.dit_sizes import read_config
from hv15.models.weights.checkpoint import open_checkpoint
from tests.lora.samples import random_lora
from tests.workflow.project import QUICK_PROGRAMS, REPOSITORY, merge, quickly
from tests.zygote import write_command

STUB = Path(__file__).with_name("stub_hv15.py")

CONFIG: dict[str, object] = {
    "task": "t2v",
    "models": {"source": "demo"},
    "datasets": [{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}],
    "cache": {"shards": 2},
    "train": {
        "max_train_steps": 2,
        "optimizer_type": "AdamW",
        "network_dim": 4,
        "network_alpha": 4,
        "save_every_n_steps": 1,
    },
    "sample": {
        "video_size": [64, 64],
        "video_length": 5,
        "infer_steps": 1,
        "prompts": [{"name": "one", "prompt": "a red circle"}],
    },
    "convert": {"formats": []},
}
CLIPS = ("cat", "dog", "fox", "owl", "pig")
TEXTS = len(CLIPS) + 2  # the prompt, and the empty text


@dataclass(frozen=True)
class Outcome:
    """What one call did."""

    code: int
    output: str
    jobs: Counter[str]
    """Command -> calls, without what only copies files."""
    clips: int
    texts: int
    """Items that were new to the store."""


class QuickProject:
    """A project folder and calls of Snakemake on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clips = root / "clips"

    @classmethod
    def make(cls, root: Path) -> Self:
        """A new project, nothing done yet. Its clips are a few bytes each: a plan never opens one."""
        project = cls(root)
        project.clips.mkdir(parents=True)
        for name in CLIPS:
            project.add_clip(name)
        (root / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        return project

    def add_clip(self, name: str, caption: str | None = None) -> None:
        (self.clips / f"{name}.mp4").write_bytes(f"the video {name}".encode())
        (self.clips / f"{name}.txt").write_text(caption or f"a {name} that runs")

    def add_lora(self, name: str, rank: int = 4) -> None:
        """A LoRA that a training of CONFIG could start from."""
        layers = trainable_layers(read_config(open_checkpoint(BASE / "dit.safetensors")))
        save_file(random_lora(layers, rank, alpha=float(rank)), self.root / name)

    def caption(self, name: str, text: str) -> None:
        (self.clips / f"{name}.txt").write_text(text)

    def set(self, **sections: object) -> None:
        """Merge settings into config.yaml; a list replaces a list."""
        path = self.root / "config.yaml"
        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), sections)))

    def set_prompts(self, *prompts: dict[str, object]) -> None:
        self.set(sample={"prompts": list(prompts)})

    def snakemake(self, *arguments: str, target: str = "results/lora.safetensors") -> Outcome:
        """Run Snakemake as a user would, from the repository."""
        return self.end(self.begin(*arguments, target=target))

    def begin(self, *arguments: str, target: str = "results/lora.safetensors") -> subprocess.Popen[str]:
        """Start a call."""
        (self.root / "ran.log").write_text("")
        command = [sys.executable, "-m", "snakemake", target, "-d", str(self.root), *arguments]
        command, variables = quickly(command, _environment(self.root))
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=variables | {"PATH": _environment(self.root)["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, run: subprocess.Popen[str]) -> Outcome:
        """Wait for the end of a call and count what it did."""
        output, _ = run.communicate()
        return self.outcome(run.returncode, output)

    def outcome(self, code: int, output: str) -> Outcome:
        """Count what the last call did."""
        lines = [line.split() for line in (self.root / "ran.log").read_text().splitlines()]
        new = Counter[str]()
        for words in lines:
            if words[0] == "encode":
                new[words[1]] += int(words[2])
        jobs = Counter(" ".join(words[:2]) for words in lines)
        return Outcome(code, output, jobs, new["latents"], new["texts"])

    def make_due(self, target: str = "results/lora.safetensors") -> Outcome:
        """Make all that is due, which must succeed."""
        outcome = self.snakemake(target=target)
        assert outcome.code == 0, outcome.output
        return outcome

    def why(self) -> str:
        """What `hv15 why` says."""
        done = subprocess.run(
            [sys.executable, "-m", "hv15.cli", "why", str(self.root)],
            env=_environment(self.root),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # -- what happens to projects -----------------------------------------------------------------------------------

    def forget(self) -> None:
        """Lose what Snakemake remembers."""
        shutil.rmtree(self.root / ".snakemake", ignore_errors=True)

    def copied(self, target: Path, *, everything: bool) -> Self:
        """A copy by `cp -a`, or by `cp -r *`: new times in any order, and no hidden files."""
        if everything:
            subprocess.run(["cp", "-a", self.root, target], check=True)
        else:
            target.mkdir()
            visible = [path for path in sorted(self.root.iterdir()) if not path.name.startswith(".")]
            subprocess.run(["cp", "-r", *visible, target], check=True)
        return type(self)(target)

    def moved(self, target: Path) -> Self:
        self.root.rename(target)
        return type(self)(target)


def _environment(root: Path) -> dict[str, str]:
    commands = root.parent / f"{root.name}-bin"
    if not commands.exists():
        commands.mkdir()
        if quick := os.environ.get(QUICK_PROGRAMS):
            write_command(commands / "hv15", Path(quick) / "socket", str(STUB))
        else:
            stand_in = f"import runpy\nrunpy.run_path({str(STUB)!r}, run_name='__main__')\n"
            (commands / "hv15").write_text(f"#!{sys.executable}\n{stand_in}")
            (commands / "hv15").chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path}
