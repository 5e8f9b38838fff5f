"""A throw-away project on which Snakemake runs for real, with the demo's tiny models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hv15.choices import ROLES
from hv15.demo.layout import DEMO_FILES

REPOSITORY = Path(__file__).parents[2]
QUICK_PROGRAMS = "HV15_TEST_PROGRAMS"
"""Environment variable: the folder of the zygote's commands."""


@dataclass
class Outcome:
    """What one `snakemake` call did."""

    code: int
    output: str
    jobs: Counter[str]
    """Rule -> finished jobs."""
    clips: int
    """Clips that were encoded."""
    texts: int
    """Texts that were encoded."""

    @property
    def heavy(self) -> dict[str, int]:
        """The jobs that cost time: no specs and reports, no publishing."""
        cheap = ("all", "publish", "contact_sheet", "check_models", "report", "card")
        return {rule: count for rule, count in self.jobs.items() if rule not in cheap}


class ProjectFolder:
    """A project folder and the calls of Snakemake on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clips = root / "clips"

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "config.yaml").read_text())

    def set(self, **sections: Any) -> None:
        """Merge settings into config.yaml; a list replaces a list."""
        self.write(merge(self.config, sections))

    def write(self, config: dict[str, Any]) -> None:
        """Write a whole config.yaml."""
        (self.root / "config.yaml").write_text(yaml.safe_dump(config))

    def snakemake(self, *arguments: str, target: str = "results/lora.safetensors", online: bool = False) -> Outcome:
        """Run Snakemake as a user would, from the repository, and count what it did."""
        logs = self.root / "results" / "logs"
        for log in logs.glob("encode_*.log") if logs.exists() else ():
            log.unlink()
        variables = environment() | ({"HF_HUB_OFFLINE": "0"} if online else {})
        command, variables = quickly(self.command(*arguments, target=target), variables)
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        return Outcome(
            done.returncode,
            output,
            Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", output, re.M)),
            self._encoded("encode_latents"),
            self._encoded("encode_texts"),
        )

    def hv15(self, *words: str) -> str:
        """Run a command of hv15, which must succeed, and return what it printed."""
        command, variables = [sys.executable, "-m", "hv15.cli"], environment()
        if folder := os.environ.get(QUICK_PROGRAMS):
            command = [f"{folder}/hv15"]
        done = subprocess.run([*command, *words], env=variables, capture_output=True, text=True, check=True)
        return done.stdout

    def command(self, *arguments: str, target: str = "results/lora.safetensors") -> list[str]:
        return [sys.executable, "-m", "snakemake", target, "-d", str(self.root), *arguments]

    def _encoded(self, rule: str) -> int:
        logs = sorted((self.root / "results" / "logs").glob(f"{rule}.*.log"))
        return sum(int(n) for log in logs for n in re.findall(r"(\d+) encoded", log.read_text()))

    def caption(self, name: str, text: str | None = None) -> str:
        """Read or write a clip's caption."""
        path = self.clips / f"{name}.txt"
        if text is not None:
            path.write_text(text)
        return path.read_text()

    def remove(self, name: str) -> dict[str, bytes]:
        """Take a clip out of the dataset and return its files."""
        files = {path.name: path.read_bytes() for path in self.clips.glob(f"{name}.*")}
        for file in files:
            (self.clips / file).unlink()
        return files


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: merge(base[key], changes[key])
        if isinstance(base.get(key), dict) and isinstance(changes.get(key), dict)
        else changes.get(key, base.get(key))
        for key in [*base, *(key for key in changes if key not in base)]
    }


def environment() -> dict[str, str]:
    """The interpreter's own `hv15` command is found first, and nothing asks the network."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def quickly(command: list[str], variables: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """`python -m snakemake ...` as a fork of a process that has imported it, its jobs too (tests/zygote.py)."""
    folder = os.environ.get(QUICK_PROGRAMS)
    if folder is None:
        return command, variables
    return [f"{folder}/snakemake", *command[3:]], {**variables, "PATH": f"{folder}{os.pathsep}{variables['PATH']}"}


def copy_clips(source: Path, target: Path, names: list[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        for path in source.glob(f"{name}.*"):
            shutil.copy(path, target / path.name)


def tiny_models(folder: Path) -> dict[str, Any]:
    """The `models` section for the random models that hv15.demo.models has made in a folder."""
    return {"source": "files", **{role: str(folder / DEMO_FILES[role]) for role in ROLES}}


def small_config(models: dict[str, Any]) -> dict[str, Any]:
    """A t2v project with two training steps and one small sample; it runs in seconds."""
    return {
        "task": "t2v",
        "models": models,
        "datasets": [{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}],
        "cache": {"shards": 2},
        "train": {
            "max_train_steps": 2,
            "optimizer_type": "AdamW",
            "network_dim": 2,
            "network_alpha": 2,
            "state_every_n_steps": 1,
        },
        "sample": {
            "video_size": [64, 64],
            "video_length": 5,
            "infer_steps": 1,
            "guidance_scale": 1.0,
            "prompts": [{"name": "one", "prompt": "a red circle"}],
        },
        "convert": {"formats": []},
    }
