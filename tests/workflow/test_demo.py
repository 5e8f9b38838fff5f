"""The default project, as a new user runs it: on a clean copy of the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.workflow.project import REPOSITORY, environment


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would give to a new user, with the files as they are now."""
    folder = tmp_path_factory.mktemp("clone") / "with spaces"
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "results/lora.safetensors", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(folder: Path) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of the steps, as training says them at its end."""
    summary = json.loads((folder / "results/train/summary.json").read_text())
    return summary["loss_first"], summary["loss_last"]


def test_the_demo_makes_a_lora_samples_and_a_comfyui_file(clone: Path) -> None:
    snakemake(clone)
    assert (clone / "results/lora.comfyui.safetensors").stat().st_size > 10_000
    for name in ("red-circle", "blue-square"):
        with av.open(str(clone / f"results/samples/{name}.mp4")) as container:
            assert len(list(container.decode(video=0))) == 9
    assert "at the end" in (clone / "results/logs/train.log").read_text()
    assert "Nothing to be done" in snakemake(clone)


def test_the_demo_learns_what_a_run_without_learning_does_not(clone: Path) -> None:
    """Both runs see the same clips, noise and sigmas, so the difference is what was learnt."""
    first, last = losses(clone)
    assert last < first
    snakemake(clone, "--config", 'train={"learning_rate": 0}')
    idle_first, idle_last = losses(clone)
    assert first < idle_first
    assert last < 0.85 * idle_last, f"learning rate as configured: {first} -> {last}; zero: {idle_first} -> {idle_last}"
