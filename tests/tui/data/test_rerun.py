"""`hv15 why` on a project with the demo's models."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.workflow.quick import QuickProject
from tui.data.rerun import DryRun, DueStage, Rerun
from tui.data.trial import Trial


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return QuickProject.make(tmp_path / "project").root / "config.yaml"


def test_what_would_run_is_told_with_its_reasons(config: Path) -> None:
    plan = DryRun(config).run()
    assert plan.error == ""
    assert [stage.rule for stage in plan.stages][:2] == ["demo_models", "encode_latents"]
    train = next(stage for stage in plan.stages if stage.rule == "train")
    assert (train.title, train.reasons) == ("train the LoRA", ("not made yet",))
    assert plan.summary == (
        "8 jobs: encode_latents 2, encode_texts 2, demo_models, train, sample_latents, sample_video, publish"
    ).replace("8 jobs", f"{len(plan.stages)} jobs")


def test_a_text_that_is_not_saved_is_asked_about_and_not_kept(config: Path) -> None:
    before = config.read_text()
    plan = DryRun(config, before.replace("network_dim", "network_dims")).run()
    assert "network_dims" in plan.error
    assert plan.error.startswith(f"{config}:")
    assert config.read_text() == before
    assert [path for path in config.parent.iterdir() if path.name.startswith(".hv15-trial")] == []


@pytest.mark.slow
def test_a_target_is_asked_for_alone(config: Path) -> None:
    plan = DryRun(config, targets=["results/train.safetensors"]).run()
    assert {stage.rule for stage in plan.stages} == {"demo_models", "encode_latents", "encode_texts", "train"}


def test_a_plan_can_be_cancelled(config: Path) -> None:
    dry_run = DryRun(config)
    threading.Timer(0.1, dry_run.cancel).start()
    assert dry_run.run().cancelled
    assert dry_run.run().cancelled


def test_without_a_folder_to_write_it_says_so(tmp_path: Path) -> None:
    plan = DryRun(tmp_path / "nowhere" / "config.yaml", "seed: 1\n").run()
    assert "cannot be written" in plan.error


def test_nothing_to_do_is_said() -> None:
    assert Rerun().summary.startswith("nothing would run")
    assert Rerun((DueStage("train", "train the LoRA", ("x",)),)).summary == "1 job: train"


def test_files_of_dashboards_that_are_gone_are_removed(config: Path) -> None:
    stale, living = (config.parent / f".hv15-trial-{pid}-0.yaml" for pid in (2**22 + 1, os.getpid()))
    stale.touch()
    living.touch()
    with Trial(config, "a: 1").file() as file:
        assert file.read_text() == "a: 1"
        assert not stale.exists()
        assert living.exists()
    assert not file.exists()
