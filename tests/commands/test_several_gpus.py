"""`hv15 train` and `hv15 stage denoise` with `context_parallel` start their own processes and give equal results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.records.outputs import LATENTS, VIDEO
from hv15.workflow import make_planner
from tests.commands.workbench import LORA, Workbench
from tests.train.world import metrics


def run(bench: Workbench, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hv15.cli", *map(str, words), "--config", str(bench.root / "config.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_training_and_sampling_on_two_ranks_give_what_one_gives(done: Workbench, tmp_path: Path) -> None:
    latents = LATENTS.path(done.paths, "one")
    expected_lora, expected_sample = load_file(done.root / LORA), load_file(latents)["latents"]
    steps = metrics(done.paths.trained.parent)
    done.set(train={"context_parallel": 2}, sample={"context_parallel": 2}, runtime={"device": "cpu"})
    done.plan()
    out = tmp_path / "elsewhere" / "lora.safetensors"
    said = run(done, "train", "--spec", done.spec("train"), "--out", out)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("at the start") == 1
    for name, tensor in load_file(out).items():
        assert_close(tensor, expected_lora[name], atol=1e-4, rtol=1e-3)
    assert len(metrics(out.parent)) == len(steps)
    spec, sample = done.spec("sample_latents.one"), tmp_path / "one.latents.safetensors"
    said = run(done, "stage", "denoise", "--spec", spec, "--lora", done.root / LORA, "--out", sample)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("denoise one 100%") == 1
    assert_close(load_file(sample)["latents"], expected_sample, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_what_a_rank_refuses_the_command_refuses(done: Workbench) -> None:
    """Once, though each rank finds it. The demo's transformer has 4 heads."""
    done.set(sample={"context_parallel": 3}, runtime={"device": "cpu"})
    done.plan()
    spec, sample = done.spec("sample_latents.one"), done.root / "one.latents.safetensors"
    said = run(done, "stage", "denoise", "--spec", spec, "--lora", done.root / LORA, "--out", sample)
    assert said.returncode == 2, said.stderr
    refusal = "error: sample.context_parallel: 3 does not divide the transformer's 4 attention heads"
    assert said.stderr.count(refusal) == said.stderr.count("hint: ") == 1
    assert "Traceback" not in said.stderr
    assert not sample.exists()


@pytest.mark.slow
def test_a_shard_on_two_ranks(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They agree on what is to be made, and the first one writes and decodes it."""
    prompts = [*done.config["sample"]["prompts"], {"name": "two", "prompt": "a red circle", "seed": 5}]
    done.set(sample={"context_parallel": 2, "prompts": prompts, "infer_steps": 2}, runtime={"device": "cpu"})
    make_planner(done.project, dry_run=False, devices=1).prepare()
    monkeypatch.chdir(done.root)
    said = run(done, "stage", "shard", "--spec", done.spec("sample_shard.0"), "--out", "made.json")
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("denoise one 100%") == said.stderr.count("denoise two 100%") == 1
    for name in ("one", "two"):
        assert all(done.paths.before_taken(output.path(done.paths, name)).exists() for output in (LATENTS, VIDEO))
