"""The default project, as a new user runs it: on a clean copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hv15.sample.contact_sheet import read_sample
from tests.workflow.project import REPOSITORY, environment

pytestmark = pytest.mark.slow

PROMPTS = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["sample"]["prompts"]


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


def test_the_demo_makes_a_lora_samples_and_a_comfyui_file(clone: Path) -> None:
    said = snakemake(clone)
    assert (clone / "results/lora.comfyui.safetensors").stat().st_size > 10_000
    for prompt in PROMPTS:
        for name in (prompt["name"], f"{prompt['name']}.base"):
            assert read_sample(clone / f"results/samples/{name}.mp4").shape == (9, 64, 64, 3)
    assert (clone / "results/samples/contact_sheet.png").exists()
    counts = re.search(
        r"^zorpward: (\d) of 6 samples without the LoRA, (\d) of 6 with it; "
        r"other prompts right: \d of 2 samples without the LoRA, (\d) of 2 with it",
        said,
        re.M,
    )
    assert counts is not None
    without, with_lora, others = map(int, counts.groups())
    assert (without, others) == (0, 2)
    assert with_lora >= 5
    assert "at the end" in (clone / "results/logs/train.log").read_text()
    assert "Nothing to be done" in snakemake(clone)
